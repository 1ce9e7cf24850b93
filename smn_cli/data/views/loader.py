"""Batches of views for training and of plain images for evaluation.

A sample's views depend on the seed, the step and its place in the step's batch alone: not on the number of workers or
of threads, on what is cached, or on where a resumed run starts.
"""

import gc
import signal
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.v2 import functional

from smn_cli.data.preprocessing import Preprocessing
from smn_cli.data.views.augmentation import Changes, draw_changes
from smn_cli.data.views.crops import ViewCutter, least_side, read_again
from smn_cli.data.views.memory import PREFETCHED, has_room_to_share
from smn_cli.data.views.pixel_cache import make_cache
from smn_cli.errors import DataError
from smn_cli.recipes import ViewPlan
from smn_cli.seeding import epoch_generator, step_generator
from smn_cli.threads import lone_threads

SLICE = 16
"""Images whose pixels are held at a time while their views are cut; what a thread takes in one piece."""
MAX_THREADS = 8
"""Of this process that load; with more they wait for each other, for Python runs one at a time."""


class Task(NamedTuple):
    """One step: its number, counted from 0, and the positions of its images."""

    step: int
    positions: list[int]


class ViewBatch(NamedTuple):
    """One step's images: their positions in the loader's paths (B,), uint8 views (B, 3, size, size) of each, global
    ones first, and what is to happen to them, (V, B); see `augmenting.augment`."""

    positions: Tensor
    views: list[Tensor]
    changes: Changes


class _ViewDataset(Dataset[tuple[Tensor, Tensor]]):
    """Whole batches of cut views, for the rows of a step's batch that are this process's."""

    def __init__(self, cutter: ViewCutter, seed: int, part: tuple[int, int]) -> None:
        self.cutter = cutter
        self.seed = seed
        self.part = part

    def __getitem__(self, task: Task) -> tuple[Tensor, Tensor]:
        return _joined([cut() for cut in self.slices(task)])

    def slices(self, task: Task) -> list[Callable[[], tuple[Tensor, Tensor]]]:
        """The batch as independent pieces of work."""
        rank, world_size = self.part
        places = self.cutter.draw(len(task.positions), step_generator(self.seed, task.step, "places"))[rank::world_size]
        own = task.positions[rank::world_size]
        starts = range(0, len(own), SLICE)
        return [partial(self.cutter.cut, own[at : at + SLICE], places[at : at + SLICE]) for at in starts]


@dataclass(frozen=True)
class ViewLoader:
    """Endless shuffled epochs of view batches, from any step on.

    Args:
        paths: images; at least one batch of them.
        plan: the views of an image.
        batch_size: images a step; what is left of an epoch is dropped, to come first to hand in another shuffle.
        seed: of the run.
        num_workers: loader processes; 0 loads in this one, a step ahead, in as many threads as torch has.
        part: (rank, world size); this process gets places rank, rank + world size, ... of every batch.
    """

    paths: Sequence[Path]
    plan: ViewPlan
    batch_size: int
    seed: int
    num_workers: int = 0
    part: tuple[int, int] = (0, 1)

    @property
    def steps_per_epoch(self) -> int:
        """Batches of one pass over the images."""
        return len(self.paths) // self.batch_size

    def tasks(self, first_step: int, last_step: int) -> Iterator[Task]:
        """The whole batches, all parts of them, of steps first_step .. last_step - 1, counted from 0."""
        order: Tensor | None = None
        for step in range(first_step, last_step):
            epoch, place = divmod(step, self.steps_per_epoch)
            if order is None or place == 0:
                generator = epoch_generator(self.seed, epoch)
                order = torch.randperm(len(self.paths), generator=generator)
            yield Task(step, order[place * self.batch_size : (place + 1) * self.batch_size].tolist())

    def batches(self, first_step: int, last_step: int) -> Iterator[ViewBatch]:
        """One batch a step.

        Raises:
            DataError: an image that was readable at the start no longer is.
        """
        rank, world_size = self.part
        cut = self._in_processes(first_step, last_step) if self.num_workers else self._here(first_step, last_step)
        num_views = self.plan.num_global + self.plan.num_local
        with closing(cut):
            for task, (large, small) in zip(self.tasks(first_step, last_step), cut, strict=True):
                generator = step_generator(self.seed, task.step, "changes")
                changes = draw_changes(self.plan, (num_views, len(task.positions)), generator)
                own = Changes(*(values[:, rank::world_size] for values in changes))
                views = [view.permute(0, 3, 1, 2) for view in (*large.unbind(1), *small.unbind(1))]
                yield ViewBatch(torch.tensor(task.positions[rank::world_size]), views, own)

    def _dataset(self, last_step: int) -> _ViewDataset:
        # only forked processes can share a cache, and forking is safe on Linux alone
        can_share = not self.num_workers or sys.platform == "linux"
        comes_again = last_step * self.batch_size > len(self.paths)  # else what is kept is memory for nothing
        side = 2 * least_side(self.plan)
        cache = None
        if can_share and comes_again:
            cache = make_cache(len(self.paths), side, num_processes=self.part[1], is_shared=self.num_workers > 0)
        return _ViewDataset(ViewCutter(self.paths, self.plan, cache), self.seed, self.part)

    def _here(self, first_step: int, last_step: int) -> Generator[tuple[Tensor, Tensor], None, None]:
        dataset = self._dataset(last_step)
        ahead: list[Future[tuple[Tensor, Tensor]]] | None = None
        pool = lone_threads(min(MAX_THREADS, torch.get_num_threads()))
        try:
            for task in self.tasks(first_step, last_step):
                now, ahead = ahead, [pool.submit(cut) for cut in dataset.slices(task)]
                if now is not None:
                    yield _joined([part.result() for part in now])
            if ahead is not None:
                yield _joined([part.result() for part in ahead])
        finally:
            pool.shutdown(cancel_futures=True)

    def _in_processes(self, first_step: int, last_step: int) -> Generator[tuple[Tensor, Tensor], None, None]:
        pixels = self.plan.num_global * self.plan.global_size**2 + self.plan.num_local * self.plan.local_size**2
        is_shared = has_room_to_share(3 * pixels * -(-self.batch_size // self.part[1]), self.num_workers)
        loader: DataLoader[tuple[Tensor, Tensor]] = DataLoader(
            self._dataset(last_step),
            batch_size=None,
            sampler=_Lazily(lambda: self.tasks(first_step, last_step)),
            collate_fn=None if is_shared else _two_arrays,
            num_workers=self.num_workers,
            worker_init_fn=_one_thread,
            prefetch_factor=PREFETCHED,
            multiprocessing_context="fork" if sys.platform == "linux" else None,
        )
        try:
            for large, small in loader:
                yield torch.as_tensor(large), torch.as_tensor(small)
        except DataError as error:
            raise _from_worker(error) from None


@dataclass(frozen=True)
class RepeatedViewLoader(ViewLoader):
    """The same of all images in their order, again and again; the last batch of a pass begins earlier to be whole."""

    @property
    def steps_per_epoch(self) -> int:
        """Batches of one pass, the last one too."""
        return -(-len(self.paths) // self.batch_size)

    def tasks(self, first_step: int, last_step: int) -> Iterator[Task]:
        """The batches first_step .. last_step - 1, counted through all passes from 0."""
        for step in range(first_step, last_step):
            start = min(step % self.steps_per_epoch * self.batch_size, len(self.paths) - self.batch_size)
            yield Task(step, list(range(start, start + self.batch_size)))


class _ImageDataset(Dataset[Tensor]):
    """uint8 crops, as the network sees them but for the normalisation."""

    def __init__(self, paths: Sequence[Path], preprocessing: Preprocessing) -> None:
        self.paths = list(paths)
        self.preprocessing = preprocessing

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        pixels: Tensor = functional.pil_to_tensor(self.preprocessing.crop(read_again(self.paths[index])))
        return pixels


def image_batches(
    paths: Sequence[Path], preprocessing: Preprocessing, *, batch_size: int = 128, num_workers: int = 0
) -> Iterator[Tensor]:
    """Normalised float32 batches (B, 3, size, size) of the images, in order.

    Raises:
        DataError: an image cannot be read; the message names it.
    """
    for crops in crop_batches(paths, preprocessing, batch_size=batch_size, num_workers=num_workers):
        yield preprocessing.normalize(crops)


def crop_batches(
    paths: Sequence[Path], preprocessing: Preprocessing, *, batch_size: int = 128, num_workers: int = 0
) -> Generator[Tensor, None, None]:
    """The same before normalisation: uint8.

    Raises:
        DataError: an image cannot be read; the message names it.
    """
    images = _ImageDataset(paths, preprocessing)
    here = not num_workers
    crops = _crops_here(images, batch_size) if here else _crops_in_processes(images, batch_size, num_workers)
    with closing(crops):
        yield from crops


def _crops_here(images: _ImageDataset, batch_size: int) -> Generator[Tensor, None, None]:
    """A batch ahead of whoever takes them, in as many threads as torch has."""
    ahead: list[Future[Tensor]] = []
    pool = lone_threads(min(MAX_THREADS, torch.get_num_threads()))
    try:
        for numbers in torch.split(torch.arange(len(images)), batch_size):
            now, ahead = ahead, [pool.submit(images.__getitem__, number) for number in numbers.tolist()]
            if now:
                yield torch.stack([image.result() for image in now])
        if ahead:
            yield torch.stack([image.result() for image in ahead])
    finally:
        pool.shutdown(cancel_futures=True)


def _crops_in_processes(images: _ImageDataset, batch_size: int, num_workers: int) -> Generator[Tensor, None, None]:
    is_shared = has_room_to_share(3 * images.preprocessing.size**2 * batch_size, num_workers)
    loader = DataLoader(
        images,
        batch_size=batch_size,
        collate_fn=None if is_shared else _one_array,
        num_workers=num_workers,
        worker_init_fn=_one_thread,
        prefetch_factor=PREFETCHED,
    )
    try:
        yield from map(torch.as_tensor, loader)
    except DataError as error:
        raise _from_worker(error) from None


class _Lazily:
    """A sampler that makes its tasks as they are asked for: a long run has millions of draws."""

    def __init__(self, make: Callable[[], Iterator[Task]]) -> None:
        self._make = make

    def __iter__(self) -> Iterator[Task]:
        return self._make()


def _two_arrays(batch: Sequence[Tensor]) -> tuple[np.ndarray, np.ndarray]:
    """A batch that comes from its process through a pipe; tensors come through shared memory."""
    large, small = batch
    return large.numpy(), small.numpy()


def _one_array(images: Sequence[Tensor]) -> np.ndarray:
    """The same of images (3, size, size)."""
    return np.stack([image.numpy() for image in images])


def _from_worker(error: DataError) -> DataError:
    """The error as it was raised, without the traceback that a worker process wraps around it."""
    return DataError(str(error).strip().splitlines()[-1].rpartition("DataError: ")[2])


def _joined(parts: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    large, small = zip(*parts, strict=True)
    return torch.cat(large), torch.cat(small)


def _one_thread(_worker: int) -> None:
    gc.freeze()  # else a collection writes to all that was there before, and so copies it
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the main process's to handle
