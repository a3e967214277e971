#!/usr/bin/env python3
"""Checks the Markdown pages: relative links lead to files and headings that exist, docs/troubleshooting.md has every reason and
error code of the sources, and no others, and docs/limits.md has every setting that is a limit, with its default, and names no
setting, constant or file that does not exist."""

import os
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
TROUBLESHOOTING = ROOT / "docs" / "troubleshooting.md"
LIMITS = ROOT / "docs" / "limits.md"
SETTINGS = ROOT / "server" / "src" / "config" / "settings.rs"
CONFIGURATION = ROOT / "deploy" / "configuration.md"
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)(?:\s+\"[^\"]*\")?\)|^\[[^\]]+\]:\s+(\S+)|<(?:img|a)\b[^>]*?(?:src|href)=\"([^\"]+)\"", re.M)
# The enums whose variants are the codes, in kebab-case, and where they are defined.
ENUMS = {"Reason": "media-core/src", "WarningCode": "media-core/src", "Slug": "signaling/src"}


def pages():
    """All Markdown files, without what was built or installed (cargo tags its folder)."""
    for folder, names, found in os.walk(ROOT):
        names[:] = [name for name in names if name not in {".git", "target", "node_modules"}
                    and not (pathlib.Path(folder) / name / "CACHEDIR.TAG").exists()]
        yield from (pathlib.Path(folder) / name for name in sorted(found) if name.endswith(".md"))


def without_code(text):
    """The text without fenced blocks and code spans, whose brackets are no links."""
    text = re.sub(r"^(```|~~~).*?^\1\s*$", "", text, flags=re.M | re.S)
    return re.sub(r"(`+)(?!`).*?(?<!`)\1(?!`)", "", text)


def anchors(page):
    """The fragments by which a page's headings are linked, as GitHub makes them."""
    text = re.sub(r"^(```|~~~).*?^\1\s*$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    seen = {}
    for heading in re.findall(r"^#{1,6}\s+(.+?)\s*#*$", text, flags=re.M):
        heading = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        anchor = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        count = seen.get(anchor, 0)
        seen[anchor] = count + 1
        yield f"{anchor}-{count}" if count else anchor
    yield from re.findall(r"<a (?:id|name)=\"([^\"]+)\"", text)


def broken_links(page):
    for found in LINK.finditer(without_code(page.read_text(encoding="utf-8"))):
        link = next(group for group in found.groups() if group)
        if re.match(r"[a-z][a-z+.-]*:", link):
            continue
        path, _, fragment = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists():
            yield f"{link}: no such file"
        elif not target.is_relative_to(ROOT):
            yield f"{link}: outside the repository"
        elif fragment and target.suffix == ".md" and fragment not in anchors(target):
            yield f"{link}: no such heading"


def codes(name, folder):
    """The codes of an enum: its variants in kebab-case, as the API writes them."""
    for path in sorted((ROOT / folder).rglob("*.rs")):
        found = re.search(rf"^pub enum {name} \{{\n(.*?)^\}}", path.read_text(encoding="utf-8"), flags=re.M | re.S)
        for variant in re.findall(r"^    ([A-Z]\w*),", found[1], flags=re.M) if found else []:
            yield re.sub(r"(?<!^)(?=[A-Z])", "-", variant).lower()


def code_failures():
    """Headings of the troubleshooting page beside the codes of the sources."""
    described = set(re.findall(r"^### `([a-z-]+)`", TROUBLESHOOTING.read_text(encoding="utf-8"), flags=re.M))
    known = set()
    for name, folder in ENUMS.items():
        found = set(codes(name, folder))
        if not found:
            yield f"no enum {name} in {folder}: does this script still know where the codes are?"
        known |= found
    yield from (f"no section for the code {code}" for code in sorted(known - described))
    yield from (f"a section for {code}, which is no code of the sources" for code in sorted(described - known))


def settings():
    """The settings by key: heading and default, as the generated reference has them."""
    text = SETTINGS.read_text(encoding="utf-8")
    headings = {}
    for heading, block in re.findall(r'^    "(\w[\w ]*)" \{\n(.*?)^    \}', text, flags=re.M | re.S):
        headings |= dict.fromkeys(re.findall(r"^        ([a-z]\w*): ", block, flags=re.M), heading)
    table = CONFIGURATION.read_text(encoding="utf-8")
    defaults = dict(re.findall(r"^\| `--[^`]+` \| `[^`]+` \| `([^`]+)` \| `?([^|`]*)`? \|", table, flags=re.M))
    return {key: (heading, defaults.get(key, "")) for key, heading in headings.items()}


def sources():
    """The text of all sources of the product."""
    for crate in ("media-core", "signaling", "server"):
        for path in sorted((ROOT / crate / "src").rglob("*.rs")):
            yield path.read_text(encoding="utf-8")


def numbers(limit):
    """The numbers that a cell names."""
    if re.match(r"none|no limit", limit):
        yield 0
    for digits, unit in re.findall(r"(\d+)( Mbit/s)?", limit.replace(",", "")):
        yield int(digits) * (1_000_000 if unit else 1)


def limit_failures():
    """Rows of the page of limits beside settings and constants."""
    known = settings()
    if not any(heading == "Limits" for heading, _ in known.values()):
        yield f"no setting under Limits in {SETTINGS.relative_to(ROOT)}: does this script still know where they are?"
    constants = set(re.findall(r"^\s*(?:pub(?:\(\w+\))? )?const ([A-Z]\w*):", "\n".join(sources()), flags=re.M))
    described, subjects = set(), set()
    for row in re.findall(r"^\|(.*)\|$", LIMITS.read_text(encoding="utf-8"), flags=re.M):
        cells = [cell.strip() for cell in row.split("|")]
        if len(cells) != 5:
            yield f"a row of {len(cells)} cells instead of 5: {cells[0]}"
            continue
        what, limit, place = cells[:3]
        if what in subjects:
            yield f"two rows: {what}"
        subjects.add(what)
        for name in re.findall(r"`([^`]+)`", place):
            if "/" in name:
                if not (ROOT / name).is_file():
                    yield f"{what}: no such file: {name}"
            elif name.isupper():
                if name not in constants:
                    yield f"{what}: no such constant: {name}"
            elif name not in known:
                yield f"{what}: no such setting: {name}"
            else:
                if name in described:
                    yield f"{what}: a second row for {name}"
                described.add(name)
                default = known[name][1]
                if default.isdigit() and int(default) not in numbers(limit):
                    yield f"{what}: {name} is {default} by default, and the row says {limit}"
    is_limit = (key for key, (heading, _) in known.items() if heading == "Limits" or key.startswith("max_"))
    yield from (f"no row for the setting {key}" for key in sorted(set(is_limit) - described))


def main():
    failures, count = [], 0
    for page in pages():
        count += 1
        failures += [f"{page.relative_to(ROOT)}: {failure}" for failure in dict.fromkeys(broken_links(page))]
    failures += [f"{TROUBLESHOOTING.relative_to(ROOT)}: {failure}" for failure in code_failures()]
    failures += [f"{LIMITS.relative_to(ROOT)}: {failure}" for failure in limit_failures()]
    for failure in failures:
        print(f"docs: {failure}", file=sys.stderr)
    print(f"docs: {count} pages, {len(failures)} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
