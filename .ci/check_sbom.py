"""Whether a bill of materials names just what is installed: check_sbom.py SBOM FREEZE, of `pip freeze`."""

import json
import re
import sys
from pathlib import Path


def main(sbom: Path, freeze: Path) -> None:
    """A message and exit code 1 where the two differ, or torch is in neither."""
    content = json.loads(sbom.read_text(encoding="utf-8"))
    if content.get("bomFormat") != "CycloneDX" or content["metadata"]["component"]["name"] != "smn-cli":
        sys.exit(f"release: {sbom.name} is no CycloneDX list of smn-cli's parts")
    own = content["metadata"]["component"]["name"]
    listed = {(_plain(part["name"]), part["version"]) for part in content["components"] if part["name"] != own}
    lines = [line for line in freeze.read_text(encoding="utf-8").splitlines() if "==" in line]
    installed = {(_plain(name), version) for name, _, version in (line.partition("==") for line in lines)}
    if differing := sorted(listed ^ installed):
        sys.exit(f"release: {sbom.name} and what is installed differ: {differing}")
    if "torch" not in {name for name, _ in listed}:
        sys.exit(f"release: {sbom.name} does not name torch")
    sys.stdout.write(f"release: {sbom.name} names {len(listed)} packages, torch among them\n")


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
