"""Indexes of tars and zips, kept in the user's cache folder: whole, or ignored. Losing one costs time alone."""

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from smn_cli.atomic import write_atomically
from smn_cli.cache_folder import cache_folder
from smn_cli.data.images.members import Stamp
from smn_cli.recognise import read_file

VERSION = 1
SETTLED_NS = 2_000_000_000
"""Nanoseconds without a change before a time of change is trusted: some file systems count in steps of two seconds."""
KEPT_FOR_S = 30 * 86_400
"""An index that was not used for this long is removed when another one is written."""
_DIGEST_BYTES = 32


def kept_or_read(archive: str, stamp: Stamp, read: Callable[[], Mapping[str, Any]], *, least: int) -> dict[str, Any]:
    """What is known of the members of an archive, by name: as it was kept, or read and, if it is much, kept.

    Args:
        archive: path.
        stamp: of the file now.
        read: reads the archive; gives a text or a tuple of numbers by name, and raises what it likes.
        least: members of an archive that is kept.

    Returns:
        The same values; tuples may have become lists.
    """
    subject = os.path.abspath(archive)  # noqa: PTH100
    kept = load_index(subject)
    if kept is not None and tuple(kept["stamp"]) == stamp:
        return dict(kept["places"])
    seen_ns = time.time_ns()
    places = dict(read())
    if len(places) >= least and is_settled(stamp[1], seen_ns):
        save_index(subject, {"stamp": list(stamp), "places": list(places.items())})
    return places


def load_index(subject: str) -> Any:
    """What `save_index` kept of an archive, or None: nothing is kept, or it is damaged or of another version.

    Args:
        subject: absolute path of the archive.
    """
    try:
        path = _path_of(subject)
        data = read_file(path)
        digest, body = data[:_DIGEST_BYTES], data[_DIGEST_BYTES:]
        if hashlib.sha256(body).digest() != digest:
            return None
        kept = json.loads(body)
        os.utime(path)  # in use, so not to be removed
    except (OSError, ValueError, RecursionError):
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
