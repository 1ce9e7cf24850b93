"""What .ci/release asks of CHANGELOG.md: the newest entry is the version given, or `Unreleased` becomes it.

changelog.py VERSION          moves the entry, and the version in the sources and in CITATION.cff
changelog.py VERSION --show   writes what the entry says
"""

import os
import re
import sys
from datetime import datetime, timezone
from pathlib import Path

ROOT = Path(__file__).parent.parent
CHANGELOG = ROOT / "CHANGELOG.md"
VERSIONS = {
    ROOT / "smn_cli" / "__init__.py": r'^__version__ = "(.*)"$',
    ROOT / "CITATION.cff": r"^version: (.*)$",
}
"""Where the version stands, and how."""
ENTRY = re.compile(
    r"^## \[(?P<name>[^\]]+)\](?P<date> - \d{4}-\d\d-\d\d)?\n(?P<text>.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL
)


def main(version: str, *, shows: bool) -> None:
    """Move or show; a message and exit code 1 where the changelog does not allow it."""
    changelog = CHANGELOG.read_text(encoding="utf-8")
    newest = ENTRY.search(changelog)
    if newest is None:
        sys.exit("release: CHANGELOG.md has no entry: expected '## [Unreleased]'")
    if not newest["text"].strip():
        sys.exit(f"release: CHANGELOG.md says nothing under {newest['name']}: write what changed")
    if shows:
        sys.stdout.write(newest["text"].strip() + "\n")
        return
    if newest["name"] == "Unreleased":
        heading = f"## [{version}] - {_today()}\n"
        CHANGELOG.write_text(
            changelog[: newest.start()] + heading + changelog[newest.start("text") :], encoding="utf-8"
        )
    elif newest["name"] != version:
        sys.exit(f"release: the newest entry of CHANGELOG.md is {newest['name']}: expected {version} or Unreleased")
    for path, pattern in VERSIONS.items():
        text = path.read_text(encoding="utf-8")
        found = re.search(pattern, text, re.MULTILINE)
        if found is None:
            sys.exit(f"release: {path.name} names no version")
        path.write_text(text[: found.start(1)] + version + text[found.end(1) :], encoding="utf-8")


def _today() -> str:
    """In UTC, so that no clock's zone decides; `SOURCE_DATE_EPOCH` wins."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    now = datetime.fromtimestamp(int(epoch), timezone.utc) if epoch else datetime.now(timezone.utc)
    return now.strftime("%Y-%m-%d")


if __name__ == "__main__":
    main(sys.argv[1], shows="--show" in sys.argv[2:])
