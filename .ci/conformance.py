#!/usr/bin/env python3
"""Keeps docs/conformance.md and the sources in step.

Sources and tests name rows of that page by id, such as RTCP-11. A test proves a row when its id stands in the comment above the
test, in its title or in its body; "SDP-10 to SDP-32" means every row between. The opening comment of a test file speaks for the
whole file.

A row has these columns: id, level, what Sluice does, from, implemented in, proven by, program. The last one is the result of
`sluice-loadtest conformance` for Sluice, as server/tests/conformance writes it into results.tsv; `pass` proves a row as a test does.
Any other result has its reason beside it, from reasons.tsv there. A row that the program cannot see has a dash.

  conformance.py           checks: every id and every row of the program has a row here; every row has a test or a reason, existing
                           paths and the program's level; the last two columns are up to date
  conformance.py --write   updates the last two columns, gives a level and a result to rows of the five columns between, and
                           follows implementation files that moved under the same name
"""

import argparse
import os
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "conformance.md"
RESULTS = ROOT / "server" / "tests" / "conformance" / "results.tsv"
# id and why Sluice does not pass it.
REASONS = RESULTS.with_name("reasons.tsv")
# The program and its tests against wrong servers prove nothing about Sluice.
PROGRAM = [ROOT / "loadtest" / "src" / "conformance", ROOT / "loadtest" / "tests" / "conformance"]
# MUST, SHOULD and MAY as the text in the column "from" says; practice where none does, but deployed clients or safety do.
LEVELS = {"MUST", "SHOULD", "MAY", "practice"}
NONE = "–"
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
        if path.suffix not in SOURCES or any(folder in path.parents for folder in PROGRAM):
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


def read_results():
    """id → (level, result) of the program's rows for Sluice."""
    lines = (line.split("\t") for line in RESULTS.read_text(encoding="utf-8").splitlines())
    return {row: (level, result) for row, level, result in lines}


def heading(line):
    """The head of a table of five columns, or the rule below it, for seven."""
    if line.startswith("|---|"):
        return "|---" + line + "---|"
    return line.replace("| id |", "| id | level |", 1) + " program |"


def widened(cells, results):
    """A row of the five columns that the page had before levels and the program, in seven."""
    row, what, source, paths, proof = cells
    standard = re.search(r"RFC|WHEP|draft|Fetch|standard", source)
    level, _ = results.get(row, ("MUST" if standard else "practice", None))
    if level != "MUST" and not standard:
        level = "practice"
    return [row, level, what, source, paths, proof, NONE]


def read_reasons(results, failures):
    """id → reason, of rows that are not passed and no others."""
    reasons = dict(line.split("\t") for line in REASONS.read_text(encoding="utf-8").splitlines())
    for row in sorted(reasons):
        if results.get(row, (None, None))[1] in {None, "pass"}:
            failures.append(f"{row}: {REASONS.name} has a reason, but there is nothing to excuse")
    return reasons


def program(row, results, reasons, failures):
    """The last column: the result, and a reason unless it is a pass."""
    if row not in results:
        return NONE
    result = results[row][1]
    if result == "pass":
        return result
    if row not in reasons:
        failures.append(f"{row}: the program says {result}, and {REASONS.name} has no reason")
        return result
    return f"{result}: {reasons[row]}"


def check_row(cells, proven, result, rewrite, failures):
    """One row with its last columns as they should be; what is wrong with it goes to `failures`."""
    row, level = cells[0], cells[1]
    if level not in LEVELS:
        failures.append(f"{row}: {level!r} is no level")
    cells[6] = result
    applies = not cells[6].startswith("not-applicable")
    paths = re.findall(r"`([^`]+)`", cells[4])
    if not paths and applies:
        failures.append(f"{row}: the row names no implementation")
    for path in paths:
        if not (ROOT / path).exists():
            now = moved(path)
            if rewrite and now:
                cells[4] = cells[4].replace(f"`{path}`", f"`{now}`")
            else:
                failures.append(f"{row}: {path} does not exist" + (f"; did it move to {now}?" if now else ""))
    if not proven.get(row) and cells[6] == NONE:
        failures.append(f"{row}: no test names this row")
    cells[5] = evidence(proven.get(row, {})) or NONE
    return "| " + " | ".join(cells) + " |"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="update the last columns")
    rewrite = parser.parse_args().write
    (named, proven), results = read_sources(), read_results()
    failures, rows, lines, stale = [], set(), [], []
    reasons = read_reasons(results, failures)
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if rewrite and line.startswith(("| id |", "|---|")) and line.count("|") == 6:
            line = heading(line)
        if ROW.match(line):
            cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
            if rewrite and len(cells) == 5:
                cells = widened(cells, results)
            if len(cells) != 7:
                failures.append(f"{cells[0]}: the row has {len(cells)} columns, not 7")
                continue
            row, level = cells[0], cells[1]
            if row in rows:
                failures.append(f"{row}: there is a second row of this id")
            rows.add(row)
            if row in results and (results[row][0] == "MUST") != (level == "MUST"):
                failures.append(f"{row}: the level is {level}, but {results[row][0]} in the program")
            fresh = check_row(cells, proven, program(row, results, reasons, failures), rewrite, failures)
            if fresh != line:
                stale.append(row)
            line = fresh
        lines.append(line)
    for each in sorted(set(named) - rows):
        failures.append(f"{each}: named in {named[each]}, but docs/conformance.md has no such row")
    for each in sorted(set(results) - rows - set(named)):
        failures.append(f"{each}: a row of the program, but docs/conformance.md has no such row")
    if rewrite:
        PAGE.write_text("\n".join(lines) + "\n", encoding="utf-8")
    elif stale:
        failures.append(f"the last columns are out of date, run .ci/conformance.py --write: {', '.join(stale)}")
    for failure in failures:
        print(f"conformance: {failure}", file=sys.stderr)
    print(f"conformance: {len(rows)} rows, {len(failures)} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
