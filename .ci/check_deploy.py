"""Checks that the files under deploy/ and .github/ are well-formed: YAML, JSON and TOML parse, systemd accepts the units."""

import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import tomllib

import yaml

ROOT = pathlib.Path(__file__).resolve().parent.parent
SERVER = ROOT / (os.environ.get("CARGO_TARGET_DIR") or "target") / "debug/sluice"
FOLDERS = ["deploy", ".github"]


def parse_yaml(path):
    for _ in yaml.safe_load_all(path.read_text(encoding="utf-8")):
        pass


def verify_unit(path):
    # The unit names where the package puts the binary; here the built one stands in for it.
    unit = re.sub(r"(?m)^(Exec\w+=[-@:+!]*)\S*/sluice\b", rf"\g<1>{SERVER}", path.read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as folder:
        copy = pathlib.Path(folder) / path.name
        copy.write_text(unit, encoding="utf-8")
        command = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(copy)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise ValueError(result.stderr.strip() or f"systemd-analyze ended with {result.returncode}")


CHECKS = {
    ".yaml": parse_yaml,
    ".yml": parse_yaml,
    ".json": lambda path: json.loads(path.read_text(encoding="utf-8")),
    ".toml": lambda path: tomllib.loads(path.read_text(encoding="utf-8")),
    ".service": verify_unit,
    ".socket": verify_unit,
}


def main():
    passed, failed = 0, 0
    for path in sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*")):
        check = CHECKS.get(path.suffix)
        # A chart's templates become YAML only when Helm has filled them in.
        if check is None or "templates" in path.parts:
            continue
        try:
            check(path)
            passed += 1
        except (ValueError, yaml.YAMLError) as error:
            failed += 1
            print(f"{path.relative_to(ROOT)}: {error}", file=sys.stderr)
    if passed + failed == 0:
        print("there is nothing to check", file=sys.stderr)
        return 1
    print(f"deploy: {passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
