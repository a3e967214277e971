#!/usr/bin/env python3
"""Checks the Markdown pages: relative links lead to files and headings that exist, and docs/troubleshooting.md has every reason
and error code of the sources, and no others."""

import os
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
TROUBLESHOOTING = ROOT / "docs" / "troubleshooting.md"
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


def main():
    failures, count = [], 0
    for page in pages():
        count += 1
        failures += [f"{page.relative_to(ROOT)}: {failure}" for failure in dict.fromkeys(broken_links(page))]
    failures += [f"{TROUBLESHOOTING.relative_to(ROOT)}: {failure}" for failure in code_failures()]
    for failure in failures:
        print(f"docs: {failure}", file=sys.stderr)
    print(f"docs: {count} pages, {len(failures)} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
