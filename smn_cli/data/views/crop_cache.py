"""Images that are looked at again and again: decoded once, then taken from memory if they are few."""

from collections.abc import Generator, Sequence
from contextlib import closing
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from smn_cli.data.preprocessing import Preprocessing
from smn_cli.data.views.loader import crop_batches
from smn_cli.data.views.memory import free_memory

SHARE = 1 / 8
"""Of the memory that is free when they are first asked for; more images than fit are read anew every time."""
BATCH_SIZE = 128


class CropCache:
    """The batches that `image_batches` gives, without reading files that somebody asked for before.

    Args:
        paths: of the images that are asked for more than once; others are not kept.
        preprocessing: of the size they are looked at.
        batch_size: images a batch, where nobody says otherwise.
    """

    def __init__(self, paths: Sequence[Path], preprocessing: Preprocessing, batch_size: int = BATCH_SIZE) -> None:
        self.preprocessing = preprocessing
        self.batch_size = batch_size
        self._awaited = frozenset(paths)
        self._kept: dict[Path, Tensor] = {}

    def batches(
        self, paths: Sequence[Path], *, batch_size: int | None = None, num_workers: int = 0
    ) -> Generator[Tensor, None, None]:
        """Normalised float32 batches (B, 3, size, size) of images, in order.

        Raises:
            DataError: an image cannot be read; the message names it.
        """
        size = batch_size or self.batch_size
        known = [self._kept.get(path) for path in paths]
        unknown = [path for path, crop in zip(paths, known, strict=True) if crop is None]
        read = crop_batches(unknown, self.preprocessing, batch_size=size, num_workers=num_workers)
        with closing(read):
            new = (crop for batch in read for crop in batch)
            for start in range(0, len(paths), size):
                crops = [next(new) if crop is None else crop for crop in known[start : start + size]]
                self._keep(paths[start : start + size], crops)
                yield self.preprocessing.normalize(torch.stack(crops))

    def _keep(self, paths: Sequence[Path], crops: Sequence[Tensor]) -> None:
        for path, crop in zip(paths, crops, strict=True):
            if path in self._awaited and path not in self._kept and self._fit:
                self._kept[path] = crop.clone()  # a part would hold its batch, which may lie in scarce shared memory

    @cached_property
    def _fit(self) -> bool:
        return len(self._awaited) * self.preprocessing.size**2 * 3 <= free_memory() * SHARE
