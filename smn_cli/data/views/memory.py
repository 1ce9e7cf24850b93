"""How much memory this process may still use, of its own and of what it shares with its loader processes."""

import os
import shutil
from pathlib import Path

UNKNOWN = 1 << 30
"""What is taken to be free where the system does not say, in bytes."""
_LIMITS = (
    ("memory.max", "memory.current", "memory.stat"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "memory.stat"),
)
"""Of control groups, version 2 and 1: the limit, what is used, and what of this are files that can be dropped."""
SHARED = Path("/dev/shm")
PREFETCHED = 2
"""Batches that a loader process has ready, or is at work on."""


def free_memory(root: Path = Path("/")) -> int:
    """Bytes that can be taken without pushing anything out: the least of what the machine and its container leave.

    Args:
        root: where `proc` and `sys` lie.
    """
    groups = root / "sys/fs/cgroup"
    left = [_left(groups / own, *names) for own in ("", *_own_groups(root / "proc/self/cgroup")) for names in _LIMITS]
    known = [value for value in (_available(root / "proc/meminfo"), *left) if value is not None]
    return max(0, min(known)) if known else UNKNOWN


def has_room_to_share(batch_bytes: int, num_workers: int) -> bool:
    """Whether shared memory holds all batches that loader processes have under way at a time, twice over.

    A batch that finds no room there is lost, and torch waits for it for ever. A container has 64 MB unless told
    otherwise.

    Args:
        batch_bytes: of one batch.
        num_workers: loader processes of this process; each process of this machine in torchrun has as many.
    """
    try:
        free = shutil.disk_usage(SHARED).free
    except OSError:  # macOS and Windows have no such folder, and no such limit
        return True
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return 2 * processes * (PREFETCHED * num_workers + 2) * batch_bytes <= free


def _own_groups(listing: Path) -> list[str]:
    """Folders of this process's control groups: `0::/path` in version 2, `4:memory:/path` in version 1."""
    try:
        lines = [line.split(":", 2) for line in listing.read_text().splitlines()]
    except OSError:
        return []
    folders = {"": "", "memory": "memory"}
    return [(folders[line[1]] + line[2]).strip("/") for line in lines if len(line) == 3 and line[1] in folders]


def _available(meminfo: Path) -> int | None:
    kilobytes = _fields(meminfo).get("MemAvailable:")
    if kilobytes is not None:
        return kilobytes * 1024
    try:  # a quarter of all memory: this is asked where the free part is not told, such as on macOS
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4
    except (AttributeError, ValueError, OSError):
        return None


def _left(folder: Path, limit: str, used: str, stat: str) -> int | None:
    try:
        most, now = int((folder / limit).read_text()), int((folder / used).read_text())
    except (OSError, ValueError):  # no such group, or "max"
        return None
    return most - now + _fields(folder / stat).get("inactive_file", 0)


def _fields(path: Path) -> dict[str, int]:
    """Lines of a name, a number and perhaps a unit."""
    try:
        lines = [line.split() for line in path.read_text().splitlines()]
    except OSError:
        return {}
    return {words[0]: int(words[1]) for words in lines if len(words) > 1 and words[1].isdigit()}
