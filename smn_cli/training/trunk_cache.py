"""What the frozen first blocks make of a few views of every image, kept, so that steps run the late blocks alone.

The views are drawn once: a run sees each of them again and again, an epoch the first of every image, the next one the
second. Activations that are bf16 already are kept as they are, others as float16; where that is too narrow, as bf16.
Everything follows from plan and images, so that a run that resumes makes the same again.
"""

import mmap
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from smn_cli.backbones.trunk import CutNetwork
from smn_cli.data.views.loader import RepeatedViewLoader, ViewBatch, ViewLoader
from smn_cli.data.views.memory import free_memory
from smn_cli.distributed import Team
from smn_cli.errors import TrainingError

MEMORY_SHARE = 0.5
"""Of the memory that is free when the cache is made; a larger one lies in a file."""


class TrunkBatch(NamedTuple):
    """One step's images: their positions (B,), activations (V B, ...), one view after the other, and who takes them."""

    positions: Tensor
    activations: Tensor
    network: CutNetwork


class _TooNarrow(Exception):
    """An activation is beyond float16."""


@dataclass(frozen=True)
class Layout:
    """How a batch of activations becomes rows of numbers, in the order in which they lie in memory."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    is_channels_last: bool

    @classmethod
    def of(cls, activations: Tensor) -> "Layout":
        """That of a batch, which may be channels last."""
        is_last = activations.ndim == 4 and activations.is_contiguous(memory_format=torch.channels_last)
        dense = activations.permute(0, 2, 3, 1) if is_last else activations
        return cls(tuple(dense.shape[1:]), activations.dtype, is_last)

    def rows(self, activations: Tensor) -> Tensor:
        """(B, ...) activations as (B, numbers)."""
        dense = activations.permute(0, 2, 3, 1) if self.is_channels_last else activations
        return dense.reshape(len(activations), -1)

    def activations(self, rows: Tensor) -> Tensor:
        """Inverse of `rows`, of rows of any type."""
        dense = rows.to(self.dtype).view(-1, *self.shape)
        return dense.permute(0, 3, 1, 2) if self.is_channels_last else dense


class TrunkCache:
    """Activations of several draws of every training image's views. Get one from `filled`.

    Args:
        network: cut where the activations belong.
        layout: of a batch.
        rows: (K, V, N, ...) numbers of K draws of V views of N images.
    """

    def __init__(self, network: CutNetwork, layout: Layout, rows: Tensor) -> None:
        self.network, self.layout, self.rows = network, layout, rows

    @classmethod
    def filled(
        cls,
        network: CutNetwork,
        loader: RepeatedViewLoader,
        activations_of: Callable[[ViewBatch], Tensor],
        *,
        num_draws: int,
        folder: Path,
        tick: Callable[[int, int], None],
        team: Team | None = None,
    ) -> "TrunkCache":
        """Run the trunk over draws of all images.

        Args:
            network: cut.
            loader: of the training images, of which it gives this process's share of each batch.
            activations_of: from a batch (B images) to (V B, ...), one view after the other.
            num_draws: K.
            folder: takes what does not fit into memory, in a file that goes with the process.
            tick: called with batches done, and in all.
            team: the processes that share the work; each holds the whole cache.

        Raises:
            DataError: an image can no longer be read.
            TrainingError: there is neither memory nor room in the folder.
        """
        fill = partial(cls._filled, network, loader, activations_of, num_draws, folder, tick, team or Team())
        with suppress(_TooNarrow):
            return fill(torch.float16)
        return fill(torch.bfloat16)

    @classmethod
    def _filled(
        cls,
        network: CutNetwork,
        loader: RepeatedViewLoader,
        activations_of: Callable[[ViewBatch], Tensor],
        num_draws: int,
        folder: Path,
        tick: Callable[[int, int], None],
        team: Team,
        narrow: torch.dtype,
    ) -> "TrunkCache":
        cache: TrunkCache | None = None
        num_images, num_batches = len(loader.paths), num_draws * loader.steps_per_epoch
        for task, batch in zip(loader.tasks(0, num_batches), loader.batches(0, num_batches), strict=True):
            activations = activations_of(batch)
            if cache is None:
                layout = Layout.of(activations)
                dtype = layout.dtype if layout.dtype.itemsize == 2 else narrow
                shape = (num_draws, len(activations) // len(batch.positions), num_images, activations[0].numel())
                cache = cls(network, layout, _space(shape, dtype, folder))
            cache._put(task.step // loader.steps_per_epoch, torch.tensor(task.positions), activations, team)
            tick(task.step + 1, num_batches)
        assert cache is not None  # a loader has a batch
        return cache

    def batches(self, loader: ViewLoader, first_step: int, last_step: int) -> Iterator[TrunkBatch]:
        """One batch a step, of the images that the loader would give; see `ViewLoader.batches`."""
        rank, world_size = loader.part
        for task in loader.tasks(first_step, last_step):
            draw = task.step // loader.steps_per_epoch % len(self.rows)
            yield self.batch(draw, torch.tensor(task.positions[rank::world_size]))

    def batch(self, draw: int, positions: Tensor) -> TrunkBatch:
        """One draw of the images at some positions (B,), on the network's device."""
        device = next(self.network.model.parameters()).device
        kept = self.rows[draw].index_select(1, positions).flatten(0, 1).to(device, non_blocking=True)
        return TrunkBatch(positions, self.layout.activations(kept), self.network)

    @property
    def num_bytes(self) -> int:
        """That it takes."""
        return self.rows.numel() * self.rows.element_size()

    def _put(self, draw: int, positions: Tensor, activations: Tensor, team: Team) -> None:
        """Keep one draw of a batch's images, of which this process has its share of the activations."""
        rows, num_views = self.layout.rows(activations), self.rows.shape[1]
        kept = rows.to(self.rows.dtype)
        is_beyond = kept.dtype == torch.float16 and not kept.isfinite().all() and bool(rows.isfinite().all())
        if team.any(is_beyond):
            raise _TooNarrow
        by_image = kept.view(num_views, -1, kept.shape[1]).transpose(0, 1).contiguous()
        whole = team.gathered(by_image.view(torch.uint8)).view(kept.dtype)  # bytes: not all types can be sent
        self.rows[draw][:, positions] = whole.transpose(0, 1).cpu()


def _space(shape: tuple[int, ...], dtype: torch.dtype, folder: Path) -> Tensor:
    """Memory for a tensor, or a file without a name where there is not enough."""
    num_bytes = dtype.itemsize * torch.Size(shape).numel()
    if num_bytes <= MEMORY_SHARE * free_memory():
        return torch.empty(shape, dtype=dtype)
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            if hasattr(os, "posix_fallocate"):  # a file with holes would end the process where the disk is full
                os.posix_fallocate(file.fileno(), 0, num_bytes)
            else:
                file.truncate(num_bytes)
            room = mmap.mmap(file.fileno(), num_bytes)
    except (OSError, ValueError) as error:
        raise TrainingError(
            f"the activations of the first blocks take {num_bytes:,} bytes, for which there is neither memory nor room "
            f"in {folder} ({error}): make room and go on with `resume`, or start again with `cache_trunk` off"
        ) from None
    return torch.frombuffer(room, dtype=dtype).view(shape)
