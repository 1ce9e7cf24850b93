"""Decoded images in memory, shared by all that load them."""

import mmap
from multiprocessing import get_context

import numpy as np

from smn_cli.data.views.memory import free_memory

SHARE = 0.5
"""Of the memory that is free when a run starts."""


class PixelCache:
    """Keeps the pixels of images until its room is used up; what is in stays in.

    Threads may share it, and processes that are forked after it was made. Memory is taken from the system as images
    come, not before.

    Args:
        num_images: positions there are.
        num_bytes: room for pixels.
        is_shared: whether forked processes write to it, too.
    """

    def __init__(self, num_images: int, num_bytes: int, *, is_shared: bool = True) -> None:
        self._room = mmap.mmap(-1, max(1, num_bytes)) if is_shared else _own_room(max(1, num_bytes))
        self._pixels = np.frombuffer(self._room, dtype=np.uint8)
        # where an image starts, its height and width; a height of 0 is an image that is not here
        self._where = np.frombuffer(mmap.mmap(-1, max(1, num_images) * 24), dtype=np.int64).reshape(-1, 3)
        self._end = np.frombuffer(mmap.mmap(-1, 8), dtype=np.int64)
        # also orders the writes of one process before the reads of another
        self._lock = get_context().Lock()

    def get(self, position: int) -> np.ndarray | None:
        """The image's pixels (H, W, 3), not to be written to; None if they are not here."""
        with self._lock:
            start, height, width = self._where[position].tolist()
        if not height:
            return None
        return self._pixels[start : start + height * width * 3].reshape(height, width, 3)

    def put(self, position: int, pixels: np.ndarray) -> None:
        """Keep an image's uint8 pixels (H, W, 3) if there is room."""
        with self._lock:
            start = int(self._end[0])
            if start + pixels.size > len(self._pixels):
                return
            self._end[0] = start + pixels.size
        self._pixels[start : start + pixels.size] = pixels.reshape(-1)
        with self._lock:
            self._where[position] = (start, *pixels.shape[:2])


def _own_room(num_bytes: int) -> mmap.mmap:
    """Memory of this process alone, which the system hands out in two thirds of the time of shared memory.

    In pages of the usual size: huge ones cost a sixth where they lie ready, and five times as much where the kernel has
    to make room for them first (docs/log.md).
    """
    if not hasattr(mmap, "MAP_PRIVATE"):  # Windows
        return mmap.mmap(-1, num_bytes)
    return mmap.mmap(-1, num_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


def make_cache(
    num_images: int, largest_side: int, *, num_processes: int = 1, is_shared: bool = True
) -> PixelCache | None:
    """A cache as large as the images could use and free memory allows; None if there is no such memory.

    Args:
        num_images: positions there are.
        largest_side: pixels of an image's shorter side at most, of which twice the square is reckoned.
        num_processes: training processes that share the machine's memory.
        is_shared: see `PixelCache`.
    """
    wanted = num_images * largest_side**2 * 3 * 2
    try:
        return PixelCache(num_images, min(wanted, int(free_memory() * SHARE / num_processes)), is_shared=is_shared)
    except (OSError, ValueError, OverflowError):
        return None
