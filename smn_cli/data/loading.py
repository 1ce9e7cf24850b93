"""Batches of views for training and of plain images for evaluation.

A sample's views depend on (seed, epoch, image) alone: not on the number of workers, nor on where a resumed run starts.
"""

import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from smn_cli.data.preprocessing import Preprocessing
from smn_cli.data.reading import BadImageError, read_image
from smn_cli.data.views import MultiCrop
from smn_cli.errors import DataError
from smn_cli.recipes import ViewPlan


class Draw(NamedTuple):
    """One sample of one step: the image's position, and the seed of its views."""

    position: int
    seed: int


class ViewBatch(NamedTuple):
    """One step's images: their positions in the loader's paths (B,), and uint8 views (B, 3, size, size) of each,
    global ones first."""

    positions: Tensor
    views: list[Tensor]


class _ViewDataset(Dataset[tuple[int, Tensor, Tensor]]):
    def __init__(self, paths: Sequence[Path], plan: ViewPlan) -> None:
        self.paths = list(paths)
        self.views = MultiCrop(plan)

    def __getitem__(self, draw: Draw) -> tuple[int, Tensor, Tensor]:
        image = _read_again(self.paths[draw.position])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(draw.seed)
            large, small = self.views(image)
        return draw.position, large, small


class _ImageDataset(Dataset[Tensor]):
    def __init__(self, paths: Sequence[Path], preprocessing: Preprocessing) -> None:
        self.paths = list(paths)
        self.preprocessing = preprocessing

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        return self.preprocessing(_read_again(self.paths[index]))


@dataclass(frozen=True)
class ViewLoader:
    """Endless shuffled epochs of view batches, from any step on.

    Args:
        paths: images; at least one batch of them.
        plan: the views of an image.
        batch_size: images a step; what is left of an epoch is dropped, to come first to hand in another shuffle.
        seed: of the run.
        num_workers: loader processes; 0 loads in this one.
    """

    paths: Sequence[Path]
    plan: ViewPlan
    batch_size: int
    seed: int
    num_workers: int = 0

    def draws(self, first_step: int, last_step: int) -> Iterator[list[Draw]]:
        """The samples of steps first_step .. last_step - 1, counted from 0."""
        steps_per_epoch = len(self.paths) // self.batch_size
        order: Tensor | None = None
        for step in range(first_step, last_step):
            epoch, position = divmod(step, steps_per_epoch)
            if order is None or position == 0:
                generator = torch.Generator().manual_seed(_mix(self.seed, epoch))
                order = torch.randperm(len(self.paths), generator=generator)
                seeds = torch.randint(2**63 - 1, (len(self.paths),), generator=generator)
            chosen = order[position * self.batch_size : (position + 1) * self.batch_size].tolist()
            yield [Draw(image, int(seeds[image])) for image in chosen]

    def batches(self, first_step: int, last_step: int) -> Iterator[ViewBatch]:
        """One batch a step.

        Raises:
            DataError: an image that was readable at the start no longer is.
        """
        loader: DataLoader[tuple[int, Tensor, Tensor]] = DataLoader(
            _ViewDataset(self.paths, self.plan),
            batch_sampler=_Lazily(lambda: self.draws(first_step, last_step)),
            num_workers=self.num_workers,
            worker_init_fn=_one_thread,
            prefetch_factor=2 if self.num_workers else None,
        )
        try:
            for positions, large, small in loader:
                yield ViewBatch(positions, [*large.unbind(1), *small.unbind(1)])
        except DataError as error:
            raise _from_worker(error) from None


def image_batches(
    paths: Sequence[Path], preprocessing: Preprocessing, *, batch_size: int = 128, num_workers: int = 0
) -> Iterator[Tensor]:
    """Normalised float32 batches (B, 3, size, size) of the images, in order.

    Raises:
        DataError: an image cannot be read; the message names it.
    """
    loader = DataLoader(
        _ImageDataset(paths, preprocessing),
        batch_size=batch_size,
        num_workers=num_workers,
        worker_init_fn=_one_thread,
    )
    try:
        yield from loader
    except DataError as error:
        raise _from_worker(error) from None


class _Lazily:
    """A batch sampler that makes its batches as they are asked for: a long run has millions of draws."""

    def __init__(self, make: Callable[[], Iterator[list[Draw]]]) -> None:
        self._make = make

    def __iter__(self) -> Iterator[list[Draw]]:
        return self._make()


def _from_worker(error: DataError) -> DataError:
    """The error as it was raised, without the traceback that a worker process wraps around it."""
    return DataError(str(error).strip().splitlines()[-1].rpartition("DataError: ")[2])


def _read_again(path: Path) -> Image.Image:
    try:
        return read_image(path)
    except BadImageError as error:
        raise DataError(f"{path} can no longer be read ({error}): did it change since it was found?") from None


def _mix(seed: int, epoch: int) -> int:
    # an odd multiplier keeps (seed, epoch) pairs apart for any realistic number of epochs
    return (seed * 1_000_003 + epoch) % 2**63


def _one_thread(_worker: int) -> None:
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the main process's to handle
