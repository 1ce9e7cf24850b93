"""Images that are looked at again and again: prepared once, then taken from memory if they are few."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from smn_cli.data.preprocessing import Preprocessing
from smn_cli.data.views.loader import crop_batches, image_batches
from smn_cli.data.views.memory import free_memory

SHARE = 1 / 8
"""Of the memory that is free when they are first asked for; more images than fit are read anew every time."""
BATCH_SIZE = 128


class CropCache:
    """The batches that `image_batches` gives, without reading the files every time.

    Args:
        paths: of the images.
        preprocessing: of the size they are looked at.
    """

    def __init__(self, paths: Sequence[Path], preprocessing: Preprocessing) -> None:
        self.paths = list(paths)
        self.preprocessing = preprocessing
        self._crops: Tensor | None = None

    def batches(self, num_images: int | None = None) -> Iterator[Tensor]:
        """Normalised float32 batches (B, 3, size, size) of the first `num_images`, of all if None, in order.

        Raises:
            DataError: an image cannot be read; the message names it.
        """
        if self._crops is None and self._fit():
            self._crops = self._prepared()
        if self._crops is None:
            yield from image_batches(self.paths[:num_images], self.preprocessing, batch_size=BATCH_SIZE)
        else:
            for crops in torch.split(self._crops[:num_images], BATCH_SIZE):
                yield self.preprocessing.normalize(crops)

    def _fit(self) -> bool:
        return len(self.paths) * self.preprocessing.size**2 * 3 <= free_memory() * SHARE

    def _prepared(self) -> Tensor:
        crops = torch.empty(len(self.paths), 3, self.preprocessing.size, self.preprocessing.size, dtype=torch.uint8)
        done = 0
        for batch in crop_batches(self.paths, self.preprocessing, batch_size=BATCH_SIZE):
            crops[done : done + len(batch)] = batch
            done += len(batch)
        return crops
