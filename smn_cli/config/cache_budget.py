"""What `--cache-trunk` says: how many bytes may be taken."""

import re

from smn_cli.errors import UsageError

AUTO, OFF = "auto", "off"
EXPECTED = "auto, off or the most bytes, such as 500MB or 2GB"
_BYTES = re.compile(r"(\d+(?:\.\d+)?) *([KMGT]?B)?", re.IGNORECASE)
_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


def parse_budget(text: str) -> int | None:
    """The most bytes that may be taken: 0 for off, None for auto, which leaves it to smn.

    Raises:
        UsageError: it is none of them.
    """
    if text in (AUTO, OFF):
        return None if text == AUTO else 0
    found = _BYTES.fullmatch(text.strip())
    num_bytes = int(float(found[1]) * _UNITS[(found[2] or "").upper()]) if found else 0
    if num_bytes < 1:
        raise UsageError(f"`cache_trunk` is {text}: expected {EXPECTED}")
    return num_bytes
