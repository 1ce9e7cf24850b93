"""A long list of paths as one block of bytes, which processes that are forked go on sharing.

Python counts who uses an object in the object itself: a forked process that only looks at a million paths copies them.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import overload

import numpy as np


class PackedPaths(Sequence[Path]):
    """The same paths in the same order, made anew whenever one is asked for; some 50 bytes each.

    Args:
        paths: any.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        names = [os.fsencode(path) for path in paths]
        self._ends = np.cumsum([len(name) for name in names], dtype=np.int64)
        self._names = b"".join(names)

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, index: int) -> Path: ...
    @overload
    def __getitem__(self, index: slice) -> "list[Path]": ...
    def __getitem__(self, index: int | slice) -> "Path | list[Path]":
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"there are {len(self)} paths, not {index}")
        place = index % len(self)
        start = int(self._ends[place - 1]) if place else 0
        return Path(os.fsdecode(self._names[start : int(self._ends[place])]))
