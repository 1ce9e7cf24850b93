"""Views have the planned sizes, and depend on the seed, the step and the place in its batch alone."""

import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from smn_cli.data.images.find import find_images
from smn_cli.data.preprocessing import Preprocessing
from smn_cli.data.views import loader as loader_module
from smn_cli.data.views.crops import read_again
from smn_cli.data.views.loader import ViewLoader, crop_batches, image_batches
from smn_cli.data.views.pixel_cache import PixelCache
from smn_cli.errors import DataError
from smn_cli.recipes import ViewPlan
from tests.conftest import write_images

PLAN = ViewPlan(2, 24, (0.4, 1.0), 3, 16, (0.1, 0.4), (0.4, 0.4, 0.4, 0.1), 0.8, 0.2, 0.5)
STILL = ViewPlan(1, 16, (1.0, 1.0), 0, 16, (1.0, 1.0), (0.0, 0.0, 0.0, 0.0), 0.0, 0.0, 0.0, flip_probability=0.0)
PLAIN = Preprocessing(8, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    """Eleven images: three batches of three and two images over."""
    write_images(tmp_path / "images", 11, size=20)
    return find_images([tmp_path / "images"])


def loader(paths: list[Path], *, seed: int = 0, num_workers: int = 0, part: tuple[int, int] = (0, 1)) -> ViewLoader:
    """Batches of three."""
    return ViewLoader(paths, PLAN, 3, seed, num_workers, part)


def loaded(loader: ViewLoader, first_step: int, last_step: int) -> list[tuple[list[int], list[Tensor]]]:
    """Positions and views of the steps, and the draws of what is to happen to them."""
    batches = loader.batches(first_step, last_step)
    return [(batch.positions.tolist(), [*batch.views, *batch.changes]) for batch in batches]


def assert_equal(found: list[tuple[list[int], list[Tensor]]], expected: list[tuple[list[int], list[Tensor]]]) -> None:
    """Same images and same pixels at every step."""
    assert len(found) == len(expected)
    for (positions, views), (expected_positions, expected_views) in zip(found, expected, strict=True):
        assert positions == expected_positions
        assert all(map(torch.equal, views, expected_views))


def test_views_come_in_the_planned_numbers_sizes_and_type(paths: list[Path]) -> None:
    [(_, views)] = loaded(loader(paths), 0, 1)
    assert [tuple(view.shape) for view in views[:5]] == [(3, 3, 24, 24)] * 2 + [(3, 3, 16, 16)] * 3
    assert {view.dtype for view in views[:5]} == {torch.uint8}
    assert [tuple(values.shape) for values in views[5:]] == [(5, 3)] * 2 + [(5, 3, 4)] + [(5, 3)] * 3


def test_the_views_of_an_image_differ_from_each_other(paths: list[Path]) -> None:
    [(_, views)] = loaded(loader(paths), 0, 1)
    assert not torch.equal(views[0], views[1])
    assert not torch.equal(views[2], views[3])


def test_without_local_views_only_global_ones_come(paths: list[Path]) -> None:
    views = next(iter(ViewLoader(paths, replace(PLAN, num_local=0), 3, 0).batches(0, 1))).views
    assert [tuple(view.shape) for view in views] == [(3, 3, 24, 24)] * 2


@pytest.mark.parametrize("first_step", [1, 2, 3, 4, 7])
def test_a_sample_does_not_depend_on_where_the_run_starts(paths: list[Path], first_step: int) -> None:
    assert_equal(loaded(loader(paths), first_step, 8), loaded(loader(paths), 0, 8)[first_step:])


@pytest.mark.parametrize("num_workers", [1, 2])
def test_a_sample_does_not_depend_on_the_number_of_workers(
    num_workers: int, paths: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # a worker hands its tensors over through a local socket
    assert_equal(loaded(loader(paths, num_workers=num_workers), 2, 8), loaded(loader(paths), 2, 8))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_sample_does_not_depend_on_what_is_cached(
    num_workers: int, paths: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    write_images(paths[0].parent, 11, size=100)  # large enough to be reduced before they are cached
    expected = loaded(loader(paths, num_workers=num_workers), 0, 9)
    for num_bytes in (0, 5 * 50 * 50 * 3 + 1):
        monkeypatch.setattr(
            loader_module, "make_cache", lambda num, _, num_bytes=num_bytes, **__: PixelCache(num, num_bytes)
        )
        assert_equal(loaded(loader(paths, num_workers=num_workers), 0, 9), expected)
    monkeypatch.setattr(loader_module, "make_cache", lambda *_, **__: None)
    assert_equal(loaded(loader(paths, num_workers=num_workers), 0, 9), expected)


@pytest.mark.parametrize("free", [50_000, 1 << 40])
def test_without_room_in_shared_memory_batches_come_through_pipes(
    free: int, paths: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # a worker hands its tensors over through a local socket
    monkeypatch.setattr("smn_cli.data.views.memory.shutil.disk_usage", lambda _path: SimpleNamespace(free=free))
    handed_over: list[object] = []

    class Noted(DataLoader[Any]):
        def __iter__(self) -> Any:
            for batch in super().__iter__():
                handed_over.append(batch)
                yield batch

    monkeypatch.setattr(loader_module, "DataLoader", Noted)
    assert_equal(loaded(loader(paths, num_workers=2), 2, 8), loaded(loader(paths), 2, 8))
    found = list(image_batches(paths, replace(PLAIN, size=64), batch_size=4, num_workers=2))
    kinds = [type(batch[0]) if isinstance(batch, list | tuple) else type(batch) for batch in handed_over]
    assert kinds == [np.ndarray if free == 50_000 else Tensor] * 9
    assert torch.equal(torch.cat(found), torch.cat(list(image_batches(paths, replace(PLAIN, size=64)))))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_files_are_read_once(num_workers: int, paths: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    whole = ViewLoader(paths, PLAN, 11, 0, num_workers)
    batches = whole.batches(0, 12)
    first = [next(batches) for _ in range(6)]  # loaders are at most four batches ahead
    for path in paths:
        path.write_bytes(b"no image")
    assert len(first) + sum(1 for _ in batches) == 12


def test_images_that_come_once_are_not_kept(paths: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    monkeypatch.setattr(loader_module, "make_cache", lambda num, *_, **__: made.append(num))
    next(iter(ViewLoader(paths, PLAN, 3, 0).batches(0, 3)))  # 9 of 11
    assert made == []
    next(iter(ViewLoader(paths, PLAN, 3, 0).batches(0, 4)))
    assert made == [11]


@pytest.mark.parametrize("world_size", [2, 3])
def test_the_parts_of_a_batch_are_the_batch(world_size: int, paths: list[Path]) -> None:
    whole = loaded(loader(paths), 1, 5)
    for rank in range(world_size):
        for (positions, views), (all_positions, all_views) in zip(
            loaded(loader(paths, part=(rank, world_size)), 1, 5), whole, strict=True
        ):
            assert positions == all_positions[rank::world_size]
            assert all(torch.equal(a, b[rank::world_size]) for a, b in zip(views[:5], all_views[:5], strict=True))
            assert all(torch.equal(a, b[:, rank::world_size]) for a, b in zip(views[5:], all_views[5:], strict=True))


def test_many_threads_give_the_batches_of_one(paths: list[Path]) -> None:
    expected = list(ViewLoader(paths * 4, PLAN, 40, 0).batches(0, 3))
    torch.set_num_threads(1)
    for found, batch in zip(ViewLoader(paths * 4, PLAN, 40, 0).batches(0, 3), expected, strict=True):
        assert all(map(torch.equal, found.views, batch.views))


def test_a_sample_does_not_depend_on_the_global_generator_and_leaves_it_alone(paths: list[Path]) -> None:
    expected = loaded(loader(paths), 0, 2)
    torch.manual_seed(123)
    left = torch.get_rng_state()
    assert_equal(loaded(loader(paths), 0, 2), expected)
    assert torch.equal(torch.get_rng_state(), left)


def test_seed_and_epoch_change_order_and_views(paths: list[Path]) -> None:
    epochs = [loaded(loader(paths), 0, 3), loaded(loader(paths), 3, 6), loaded(loader(paths, seed=1), 0, 3)]
    orders = [[image for positions, _ in epoch for image in positions] for epoch in epochs]
    assert len({tuple(order) for order in orders}) == 3
    shared = set(orders[0]) & set(orders[1]) & set(orders[2])
    pixels = []
    for epoch in epochs:
        by_image = {p: views[0][row] for positions, views in epoch for row, p in enumerate(positions)}
        pixels.append(by_image[min(shared)])
    assert not torch.equal(pixels[0], pixels[1])
    assert not torch.equal(pixels[0], pixels[2])


def test_every_step_draws_anew_and_another_seed_draws_otherwise(paths: list[Path]) -> None:
    one_image = [paths[0]] * 3
    batches = [next(iter(loader(one_image, seed=seed).batches(step, step + 1))) for seed in (0, 1) for step in (0, 1)]
    for first in range(4):
        for second in range(first):
            assert not torch.equal(batches[first].views[0], batches[second].views[0])
            assert not torch.equal(batches[first].changes.amounts, batches[second].changes.amounts)


def test_positions_name_the_images_that_the_views_show(paths: list[Path]) -> None:
    for number, path in enumerate(paths):
        Image.new("RGB", (20, 20), (number * 20, 0, 0)).save(path)
    for batch in ViewLoader(paths, STILL, 3, 0).batches(0, 3):
        assert (batch.views[0][:, 0, 0, 0] // 20).tolist() == batch.positions.tolist()


@pytest.mark.parametrize("num_images", [9, 11])
def test_an_epoch_shows_no_image_twice(num_images: int, tmp_path: Path) -> None:
    loader = ViewLoader([tmp_path / str(number) for number in range(num_images)], PLAN, 3, 0)
    for epoch in range(4):
        seen = Counter(image for task in loader.tasks(3 * epoch, 3 * epoch + 3) for image in task.positions)
        assert len(seen) == 9
        assert set(seen.values()) == {1}


def test_every_image_gets_its_turn_though_the_last_batch_of_an_epoch_is_dropped(tmp_path: Path) -> None:
    loader = ViewLoader([tmp_path / str(number) for number in range(11)], PLAN, 3, 0)
    assert {image for task in loader.tasks(0, 30) for image in task.positions} == set(range(11))


def test_an_image_that_vanishes_during_the_run_is_named(paths: list[Path]) -> None:
    paths[4].unlink()
    with pytest.raises(DataError, match=rf"^{paths[4]} can no longer be read \(No such file or directory\): did it"):
        loaded(loader(paths), 0, 6)


def test_images_for_evaluation_come_in_order_whatever_the_batch_size(paths: list[Path]) -> None:
    whole = torch.cat(list(image_batches(paths, PLAIN, batch_size=100)))
    assert whole.shape == (11, 3, 8, 8)
    parts = list(image_batches(paths, PLAIN, batch_size=4))
    assert [len(part) for part in parts] == [4, 4, 3]
    assert torch.equal(torch.cat(parts), whole)
    with Image.open(paths[7]) as image:
        assert torch.equal(whole[7], PLAIN(image))


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_bad_image_in_an_evaluation_is_named_in_one_line(paths: list[Path], num_workers: int) -> None:
    paths[2].write_bytes(b"no image")
    with pytest.raises(DataError) as error_info:
        list(image_batches(paths, PLAIN, num_workers=num_workers))
    assert str(error_info.value).startswith(f"{paths[2]} can no longer be read (not a readable JPEG")
    assert "\n" not in str(error_info.value)


def test_images_are_decoded_a_batch_ahead_and_no_thread_outlives_whoever_looks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_images(tmp_path / "images", 8)
    own, asked = read_again, []

    def noted(path: Path, **options: Any) -> Any:
        asked.append(path)
        return own(path, **options)

    monkeypatch.setattr(loader_module, "read_again", noted)
    before = threading.active_count()
    batches = crop_batches(sorted((tmp_path / "images").iterdir()), PLAIN, batch_size=2)
    next(batches)
    deadline = time.monotonic() + 60
    while len(asked) < 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(asked) == 4
    assert threading.active_count() > before
    batches.close()
    assert threading.active_count() == before
    assert len(asked) == 4
