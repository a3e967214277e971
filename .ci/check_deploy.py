"""Checks the files under deploy/ and .github/: YAML, JSON and TOML parse, systemd accepts the units, and what runs Sluice gives it
no more than it needs: units are sandboxed, containers have no root, no capabilities and nothing to write to."""

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
# The highest exposure that `systemd-analyze security` may find, in tenths; 0 is none, 100 is all. It is 1.2 by systemd 252, for the
# host's network and Internet sockets (most of it), Unix sockets and netlink, setpriority, the host's root directory and device
# list, and peers whose addresses nobody can list beforehand. Later versions look at more.
MOST_EXPOSED = 15


def parse_yaml(path):
    for _ in yaml.safe_load_all(path.read_text(encoding="utf-8")):
        pass


def check_compose(path):
    """The service that is Sluice has a read-only root, no capabilities, and no way to more."""
    services = yaml.safe_load(path.read_text(encoding="utf-8"))["services"]
    service = services["sluice"]
    if service.get("read_only") is not True:
        raise ValueError("sluice: the root is not read-only")
    if service.get("cap_drop") != ["ALL"] or service.get("cap_add"):
        raise ValueError("sluice: it has capabilities")
    if "no-new-privileges:true" not in service.get("security_opt", []):
        raise ValueError("sluice: it may get new privileges")
    if service.get("privileged") or service.get("user", "10001").split(":")[0] in {"0", "root"}:
        raise ValueError("sluice: it runs as root")


def check_dockerfile(path):
    """What runs in the end is not root."""
    lines = path.read_text(encoding="utf-8").splitlines()
    last = max(index for index, line in enumerate(lines) if line.startswith("FROM "))
    users = [line.split()[1] for line in lines[last:] if line.startswith("USER ")]
    if not users or users[-1].split(":")[0] in {"0", "root"}:
        raise ValueError("the last stage runs as root")


def exposure(path):
    """How exposed a unit is, in tenths, without a running systemd."""
    command = ["systemd-analyze", "security", "--offline=yes", "--no-pager", f"--threshold={MOST_EXPOSED}", str(path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(r"Overall exposure level for \S+: (\d+)\.(\d)", result.stdout)
    if found is None:
        raise ValueError(result.stderr.strip() or "systemd-analyze security tells no exposure")
    return int(found[1]) * 10 + int(found[2])


def check_unit(path):
    verify_unit(path)
    if path.suffix == ".service":
        exposed = exposure(path)
        if exposed > MOST_EXPOSED:
            raise ValueError(f"its exposure is {exposed / 10}, and {MOST_EXPOSED / 10} is the most that is allowed")


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
    ".service": check_unit,
    ".socket": check_unit,
}
# Files that are more than well-formed.
FURTHER = {"compose.yaml": check_compose, "Dockerfile": check_dockerfile}


def main():
    passed, failed = 0, 0
    for path in sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*")):
        checks = [check for check in (CHECKS.get(path.suffix), FURTHER.get(path.name)) if check]
        # A chart's templates become YAML only when Helm has filled them in.
        if not checks or "templates" in path.parts:
            continue
        try:
            for check in checks:
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
