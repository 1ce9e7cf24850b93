"""Indexes of tars, kept in the user's cache folder: whole, or ignored. Losing one costs time alone."""

import contextlib
import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

from smn_cli.atomic import write_atomically
from smn_cli.cache_folder import cache_folder

VERSION = 1
SETTLED_NS = 2_000_000_000
"""Nanoseconds without a change before a time of change is trusted: some file systems count in steps of two seconds."""
KEPT_FOR_S = 30 * 86_400
"""An index that was not used for this long is removed when another one is written."""
_DIGEST_BYTES = 32


def load_index(subject: str) -> Any:
    """What `save_index` kept of a tar, or None: nothing is kept, or it is damaged or of another version.

    Args:
        subject: absolute path of the tar.
    """
    try:
        path = _path_of(subject)
        data = path.read_bytes()
        digest, body = data[:_DIGEST_BYTES], data[_DIGEST_BYTES:]
        if hashlib.sha256(body).digest() != digest:
            return None
        kept = json.loads(body)
        os.utime(path)  # in use, so not to be removed
    except (OSError, ValueError):
        return None
    return kept["content"] if (kept["version"], kept["subject"]) == (VERSION, subject) else None


def save_index(subject: str, content: Any) -> None:
    """Keep plain values for `load_index`; where the cache folder cannot be written, nothing is kept."""
    body = json.dumps({"version": VERSION, "subject": subject, "content": content}, separators=(",", ":")).encode()
    with contextlib.suppress(OSError):
        path = _path_of(subject)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)  # names of files are the user's own affair
        write_atomically(path, hashlib.sha256(body).digest() + body)
        _remove_unused(path.parent)


def is_settled(changed_ns: int, seen_ns: int) -> bool:
    """Whether something last changed long enough before it was looked at that a later change must show."""
    return changed_ns + SETTLED_NS < seen_ns


def _remove_unused(folder: Path) -> None:
    oldest = time.time() - KEPT_FOR_S
    for path in folder.iterdir():
        if path.stat().st_mtime < oldest:
            path.unlink()


def _path_of(subject: str) -> Path:
    return cache_folder() / "index" / hashlib.sha256(os.fsencode(subject)).hexdigest()[:40]
