"""Files and folders held by a living process, so that what a killed one left behind can be told from work going on."""

import os
import re
import shutil
import time
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: nothing is held there, and nothing cleared
    fcntl = None  # type: ignore[assignment]

ORPHAN_AGE_S = 60.0
"""Younger ones may be made this moment, and not be held yet."""
_TEMPORARY = re.compile(r"\.[a-z0-9_]{8}")

_held: dict[tuple[int, int], tuple[int, int]] = {}
"""Of this process: (device, inode) to (open file, how often it is held)."""


class Hold:
    """A file or folder that this process holds until `release`, or until it ends in whatever way."""

    def __init__(self, key: tuple[int, int] | None) -> None:
        self._key = key

    def release(self) -> None:
        """Let go; a second call does nothing."""
        key, self._key = self._key, None
        if key is None or key not in _held:
            return
        handle, count = _held[key]
        if count > 1:
            _held[key] = handle, count - 1
        else:
            del _held[key]
            os.close(handle)


def hold(path: Path) -> Hold | None:
    """Hold a file or folder; None if another process does.

    Where the system has no such locks, as some network file systems, everybody holds everything.

    Raises:
        OSError: it is not there, or may not be read.
    """
    if fcntl is None:
        return Hold(None)
    handle = os.open(path, os.O_RDONLY)
    status = os.fstat(handle)
    key = status.st_dev, status.st_ino
    if key in _held:
        os.close(handle)
        _held[key] = _held[key][0], _held[key][1] + 1
        return Hold(key)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    except OSError:
        os.close(handle)
        return Hold(None)
    _held[key] = handle, 1
    return Hold(key)


def hold_patiently(path: Path, seconds: float = 5.0) -> Hold | None:
    """The same, tried again for a while: loader processes outlive a killed run by a moment, and hold what it held."""
    until = time.monotonic() + seconds
    while (held := hold(path)) is None and time.monotonic() < until:
        time.sleep(0.1)
    return held


def clear_orphans(path: Path, *, least_age_s: float = ORPHAN_AGE_S) -> None:
    """Remove temporary files and folders of `path` whose process is gone; see `smn_cli.atomic`.

    Args:
        path: whose place they were to take.
        least_age_s: younger ones stay; 0 where nobody else may be at work.
    """
    if fcntl is None:
        return
    prefix, now = f".{path.name}", time.time()
    try:
        names = [name for name in os.listdir(path.parent) if name.startswith(prefix)]  # noqa: PTH208
        for name in names:
            orphan = path.parent / name
            if not _TEMPORARY.fullmatch(name.removeprefix(prefix)) or now - orphan.stat().st_mtime < least_age_s:
                continue
            if (held := hold(orphan)) is not None:
                shutil.rmtree(orphan, ignore_errors=True) if orphan.is_dir() else orphan.unlink(missing_ok=True)
                held.release()
    except OSError:  # another process was faster, or it is not ours to remove
        return
