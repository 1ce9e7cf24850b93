"""Room for the rows of many images: in memory, or in half precision in a file that is mapped into it.

What is mapped lies on disk and takes no memory that the system could not have back; the file has no name, and is gone
with the rows.
"""

import os
import tempfile
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

MAX_BYTES = 2_000_000_000
"""Of float32 rows that stay in memory."""
MANY = 50_000
"""Rows that are worked on in one piece, so that numbers do not hang on the piece for any run so small."""


def room_for_rows(num_rows: int, width: int, folder: Path, *, half: bool = False) -> Tensor:
    """(N, F) without values: float32 in memory, or above `MAX_BYTES` float16 in a file of the folder.

    Args:
        num_rows, width: N and F.
        folder: that exists; on a system whose files cannot lose their names, rows stay in memory.
        half: float16 in memory, too.

    Raises:
        OSError: the folder cannot be written.
    """
    if 4 * num_rows * width <= MAX_BYTES:
        return torch.empty(num_rows, width, dtype=torch.half if half else torch.float32)
    if os.name == "nt":
        return torch.empty(num_rows, width, dtype=torch.half)
    handle, name = tempfile.mkstemp(dir=folder, prefix=".rows.")
    try:
        if hasattr(os, "posix_fallocate"):  # a full disk shows here, not as a signal when a page is written
            os.posix_fallocate(handle, 0, 2 * num_rows * width)
        rows = torch.from_file(name, shared=True, size=num_rows * width, dtype=torch.half)
    finally:
        os.close(handle)
        with suppress(OSError):
            Path(name).unlink()
    return rows.view(num_rows, width)


def fill(room: Tensor, first: int, rows: Tensor) -> None:
    """Put rows (B, F) into their places, from `first` on; what half precision cannot hold, as the most it can."""
    if room.dtype == torch.half:
        rows = rows.clamp(*(torch.finfo(torch.half).min, torch.finfo(torch.half).max))
    room[first : first + len(rows)] = rows


def pieces(num_rows: int) -> list[slice]:
    """Parts of N rows to be worked on one after another; one part up to `MANY`."""
    return [slice(first, min(first + MANY, num_rows)) for first in range(0, num_rows, MANY)]
