"""What all archives of images have in common: how a file is known again, how members are named, what is too large."""

import os
from typing import NamedTuple

from smn_cli.data.images.extensions import IMAGE_SUFFIXES, suffix_of

MAX_MEMBER_BYTES = 1_000_000_000
"""Largest member that is read: a member goes through memory whole, and no decodable image is larger."""
MAX_MEMBERS = 2_000_000
"""Images of one archive that are kept in mind: some 400 MB of names."""
_CONTROL = frozenset(map(chr, [*range(32), 127]))

Stamp = tuple[int, int, int]
"""(size in bytes, mtime_ns, inode) of a file: another one, and it is another file."""


class MemberError(OSError):
    """A member of an archive that is not there or cannot be used; the message is the reason, without the path."""


class Label(NamedTuple):
    """A member's name below its archive, made harmless, and what is wrong with it; empty if nothing is."""

    name: str
    reason: str


def stamp_of(found: os.stat_result) -> Stamp:
    """Of a file."""
    return found.st_size, found.st_mtime_ns, found.st_ino


def label_of(name: str, kind: str) -> Label | None:
    """How a member is called, with '/' between the parts; None if it is hidden or not named like an image.

    Args:
        name: as the archive has it.
        kind: of the archive, for the reason.
    """
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if not parts or suffix_of(parts[-1]) not in IMAGE_SUFFIXES:
        return None
    reason = ""
    if name.startswith("/") or ".." in parts:
        reason = f"its name in the {kind} is absolute or leads outside"
        parts = ["__" if part == ".." else part for part in parts]
    if any(part.startswith(".") for part in parts):
        return None
    label = "/".join(parts)
    if any(letter in _CONTROL for letter in label):
        reason = f"control characters in its name in the {kind}"
        label = "".join("?" if letter in _CONTROL else letter for letter in label)
    return Label(label, reason)
