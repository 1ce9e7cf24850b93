"""Which images each process of a team looks at: runs of whole batches, all of an archive where those are many.

The batches are those of one process, so that what is computed from them is the same to the bit; and an archive is
opened, indexed and read by one process alone, but for the few images that fill its neighbour's last batch.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path

MAX_RUN = 10_000
"""Images of a run, at most: what a process hands over at a time, and no longer than that does another wait."""
RUNS_A_PROCESS = 4
"""At least so many runs for each process, if there are batches enough: else the last would leave most idle."""
_ARCHIVE = re.compile(r".*\.(?:tar|zip|parquet)" + re.escape(os.sep), re.IGNORECASE)


def runs_of(paths: Sequence[Path], batch_size: int, num_processes: int) -> list[range]:
    """Positions of the images, in order, as runs; the run number i is process i % num_processes' to do.

    Args:
        paths: of N images, sorted, so that an archive's images stand together.
        batch_size: each run begins at a multiple of it.
        num_processes: 1 or more; one alone has a single run.

    Returns:
        Ranges that follow one another, of 0 .. N - 1 together; none is empty.
    """
    total = len(paths)
    if num_processes == 1 or not total:
        return [range(total)] if total else []
    longest = max(batch_size, min(MAX_RUN, total // (num_processes * RUNS_A_PROCESS)))
    starts: list[int] = []
    archive = None
    for first in range(0, total, batch_size):
        into = _archive_of(paths[first])
        if not starts or into != archive or first + batch_size - starts[-1] > longest:
            starts.append(first)
            archive = into
    return [range(first, last) for first, last in zip(starts, [*starts[1:], total], strict=True)]


def _archive_of(path: Path) -> str | None:
    """The archive that a path leads into, by its name alone."""
    found = _ARCHIVE.match(str(path))
    return None if found is None else found.group()
