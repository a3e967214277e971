#!/usr/bin/env python3
"""Keeps docs/conformance.md and the sources in step.

Sources and tests name rows of that page by id, such as RTCP-11. A test proves a row when its id stands in the comment above the
test, in its title or in its body; "SDP-10 to SDP-32" means every row between. The opening comment of a test file speaks for the
whole file.

  conformance.py           checks: every id has a row, every row has a test and existing paths, the last column is up to date
  conformance.py --write   updates the last column, and follows implementation files that moved under the same name
"""

import argparse
import os
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "conformance.md"
SOURCES = {".rs", ".js", ".mjs", ".py"}
# Other texts name rows, too, but prove none.
TEXTS = {".md", ".toml", ".yml", ".yaml"}
ID = r"[A-Z]+-H?\d\d[a-z]?"
MENTION = re.compile(rf"\b({ID})\b(?:\s+to\s+({ID})\b)?")
# Of the same form, but no ids.
NOT_IDS = {"CM-80"}
ROW = re.compile(rf"^\| ({ID}) \|")
# So many tests are named in a row; more of them are only counted.
NAMED = 3

RUST_TEST = re.compile(r"^\s*#\[(?:[a-z_]+::)*test\b")
RUST_FN = re.compile(r"^\s*(?:pub )?(?:async )?fn (\w+)")
JS_TEST = re.compile(r"""^\s*(?:await )?(?:t\.)?(?:test|it)\(\s*(['"`])(.+?)\1""")
PYTHON_TEST = re.compile(r"^(\s*)(?:async )?def (test_\w+)")


def files():
    """The repository's texts, without what was built or installed (cargo tags its folder)."""
    for folder, names, found in os.walk(ROOT):
        names[:] = sorted(
            name for name in names
            if name not in {".git", "target", "node_modules", "corpus"} and not (pathlib.Path(folder) / name / "CACHEDIR.TAG").exists()
        )
        for name in sorted(found):
            path = pathlib.Path(folder) / name
            if path.suffix in SOURCES | TEXTS and path not in {PAGE, pathlib.Path(__file__).resolve()}:
                yield path


def ids(text):
    """The ids in a text, ranges expanded."""
    for first, last in MENTION.findall(text):
        if first in NOT_IDS:
            continue
        prefix, number = first[:-2], first[-2:]
        if last and last[:-2] == prefix and number.isdigit():
            for each in range(int(number), int(last[-2:]) + 1):
                yield f"{prefix}{each:02}"
        else:
            yield first
            if last:
                yield last


def is_test_file(path):
    parts = path.relative_to(ROOT).parts
    return "tests" in parts[:-1] or path.stem == "tests" or path.stem.startswith(("tests_", "test_")) or path.name.endswith(".test.js")


def indent(line):
    return len(line) - len(line.lstrip())


def block_end(lines, start):
    """The line after the block that begins at `start`: the next one that is indented no deeper and is not its closing line."""
    for number in range(start + 1, len(lines)):
        line = lines[number]
        if line.strip() and indent(line) <= indent(lines[start]):
            return number + 1 if line.strip()[0] in "})]" else number
    return len(lines)


def spans(path, lines):
    """(test name, first line, line after the last) of every test, with the comment and the attributes above it."""
    begin = {".rs": rust_test, ".py": python_test}.get(path.suffix, js_test)
    comment = "#" if path.suffix == ".py" else "//"
    for number in range(len(lines)):
        name = begin(lines, number)
        if name is None:
            continue
        first = number
        while first > 0 and lines[first - 1].lstrip().startswith((comment, "#[", "@", "*", "/*")):
            if lines[first - 1].lstrip().startswith("//!"):
                break
            first -= 1
        yield name, first, block_end(lines, number)


def rust_test(lines, number):
    found = RUST_FN.match(lines[number])
    above = number - 1
    while found and above >= 0 and lines[above].lstrip().startswith(("#[", "//")):
        if RUST_TEST.match(lines[above]):
            return found[1]
        above -= 1
    return None


def js_test(lines, number):
    found = JS_TEST.match(lines[number])
    return found[2] if found else None


def python_test(lines, number):
    found = PYTHON_TEST.match(lines[number])
    return found[2] if found else None


def read_sources():
    """id → where it is named, and id → the tests that prove it, as (path, test name or nothing for a whole file)."""
    named, proven = {}, {}
    for path in files():
        text = path.read_text(encoding="utf-8")
        if not MENTION.search(text):
            continue
        lines = text.splitlines()
        for number, line in enumerate(lines, start=1):
            for each in ids(line):
                named.setdefault(each, f"{path.relative_to(ROOT)}:{number}")
        if path.suffix not in SOURCES:
            continue
        for name, first, last in spans(path, lines):
            for each in ids("\n".join(lines[first:last])):
                proven.setdefault(each, {})[(path, name)] = True
        if is_test_file(path):
            head = [line for line in lines[:20] if line.startswith(("//!", '"""'))]
            for each in ids("\n".join(head)):
                proven.setdefault(each, {})[(path, None)] = True
    return named, proven


def evidence(tests):
    """The last column: the tests, each linked to its file."""
    def link(path, name):
        where = os.path.relpath(path, PAGE.parent)
        return f"[{path.name}]({where})" if name is None else f"[`{name}`]({where})"

    ordered = sorted(tests, key=lambda test: (str(test[0]), test[1] or ""))
    more = len(ordered) - NAMED
    return ", ".join(link(*test) for test in ordered[:NAMED]) + (f" and {more} more" if more > 0 else "")


def moved(path):
    """Where a file of this name stands now in its crate, if there is only one."""
    old = pathlib.PurePath(path)
    found = [now for now in (each.relative_to(ROOT) for each in files())
             if (now.name, now.parts[:2]) == (old.name, old.parts[:2]) and not is_test_file(ROOT / now)]
    return str(found[0]) if len(found) == 1 else None


def check_row(cells, proven, rewrite, failures):
    """One row with its last column as it should be; what is wrong with it goes to `failures`."""
    row = cells[0]
    paths = re.findall(r"`([^`]+)`", cells[3])
    if not paths:
        failures.append(f"{row}: the row names no implementation")
    for path in paths:
        if not (ROOT / path).exists():
            now = moved(path)
            if rewrite and now:
                cells[3] = cells[3].replace(f"`{path}`", f"`{now}`")
            else:
                failures.append(f"{row}: {path} does not exist" + (f"; did it move to {now}?" if now else ""))
    if not proven.get(row):
        failures.append(f"{row}: no test names this row")
    cells[4] = evidence(proven.get(row, {}))
    return "| " + " | ".join(cells) + " |"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="update the last column")
    rewrite = parser.parse_args().write
    named, proven = read_sources()
    failures, rows, lines, stale = [], set(), [], []
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if ROW.match(line):
            cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
            if len(cells) != 5:
                failures.append(f"{cells[0]}: the row has {len(cells)} columns, not 5")
                continue
            if cells[0] in rows:
                failures.append(f"{cells[0]}: there is a second row of this id")
            rows.add(cells[0])
            fresh = check_row(cells, proven, rewrite, failures)
            if fresh != line:
                stale.append(cells[0])
            line = fresh
        lines.append(line)
    for each in sorted(set(named) - rows):
        failures.append(f"{each}: named in {named[each]}, but docs/conformance.md has no such row")
    if rewrite:
        PAGE.write_text("\n".join(lines) + "\n", encoding="utf-8")
    elif stale:
        failures.append(f"the last column is out of date, run .ci/conformance.py --write: {', '.join(stale)}")
    for failure in failures:
        print(f"conformance: {failure}", file=sys.stderr)
    print(f"conformance: {len(rows)} rows, {len(failures)} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
