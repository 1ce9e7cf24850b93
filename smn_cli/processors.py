"""How many processors this process may use."""

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath


def num_processors(root: Path = Path("/")) -> int:
    """Those that this process is bound to, or fewer where a container has a quota; at least one.

    A quota is of time, which all processors of the machine are still seen behind: threads for each of them would spend
    it in a part of every period and stand still for the rest.

    Args:
        root: where `proc` and `sys` lie.
    """
    return max(1, min([bound_processors(), *map(math.ceil, _quotas(root))]))


def bound_processors() -> int:
    """Those that this process is bound to; all of the machine where the system does not say."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _quotas(root: Path) -> Iterator[float]:
    """Processors' worth of time that the control groups of this process leave, version 2 and 1."""
    groups, own = root / "sys/fs/cgroup", _own_groups(root / "proc/self/cgroup")
    for folder in _upwards(own.get("", "/")):
        words = _words(groups / folder / "cpu.max")
        if len(words) == 2:
            yield from _share(*words)
    for folder in _upwards(own.get("cpu", "/")):
        for controllers in ("cpu", "cpu,cpuacct"):
            place = groups / controllers / folder
            words = [*_words(place / "cpu.cfs_quota_us"), *_words(place / "cpu.cfs_period_us")]
            if len(words) == 2:
                yield from _share(*words)


def _own_groups(listing: Path) -> dict[str, str]:
    """Paths of this process's groups by controller, of version 2 by the empty name."""
    try:
        lines = [line.split(":", 2) for line in listing.read_text().splitlines()]
    except OSError:
        return {}
    return {name: line[2] for line in lines if len(line) == 3 for name in line[1].split(",")}


def _upwards(path: str) -> list[str]:
    """A group and those that it lies in, which limit it too; inside a container the outermost is its own."""
    here = PurePosixPath(path.lstrip("/"))
    return [str(here), *map(str, here.parents)]


def _words(file: Path) -> list[str]:
    try:
        return file.read_text().split()
    except (OSError, ValueError):
        return []


def _share(quota: str, period: str) -> Iterator[float]:
    if quota.isdecimal() and period.isdecimal() and int(quota) and int(period):  # else "max" or -1: no limit
        yield int(quota) / int(period)
