"""Kept images are those of the files, read once, and only kept if they are few."""

from pathlib import Path

import pytest
import torch

from smn_cli.data.preprocessing import Preprocessing
from smn_cli.data.views import crop_cache
from smn_cli.data.views.crop_cache import CropCache
from smn_cli.data.views.loader import image_batches
from smn_cli.errors import DataError
from tests.conftest import write_images

PREPARE = Preprocessing(16, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    """Two batches and a bit."""
    write_images(tmp_path / "images", 9, size=20)
    return sorted((tmp_path / "images").iterdir())


@pytest.mark.parametrize("num_images", [9, 3, 4, 6])
@pytest.mark.parametrize("free", [0, 1 << 30])
def test_they_are_the_batches_of_the_files(
    num_images: int, free: int, paths: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crop_cache, "free_memory", lambda: free)
    images = CropCache(paths, PREPARE, batch_size=4)
    expected = list(image_batches(paths[:num_images], PREPARE, batch_size=4))
    for _ in range(2):
        found = list(images.batches(paths[:num_images]))
        assert len(found) == len(expected)
        assert all(map(torch.equal, found, expected))


def test_some_kept_and_some_read_come_in_the_order_asked_for(paths: list[Path]) -> None:
    images = CropCache(paths[2:6], PREPARE, batch_size=4)
    list(images.batches(paths[3:5]))
    asked = [paths[8], paths[4], paths[0], paths[3], paths[5], paths[2]]
    expected = list(image_batches(asked, PREPARE, batch_size=5))
    assert all(map(torch.equal, images.batches(asked, batch_size=5), expected))


def test_few_are_read_once(paths: list[Path]) -> None:
    images = CropCache(paths, PREPARE, batch_size=4)
    first = list(images.batches(paths))
    for path in paths:
        path.unlink()
    assert all(map(torch.equal, images.batches(paths), first))


def test_those_nobody_awaits_are_not_kept(paths: list[Path]) -> None:
    images = CropCache(paths[:3], PREPARE, batch_size=4)
    list(images.batches(paths))
    paths[5].unlink()
    list(images.batches(paths[:3]))
    with pytest.raises(DataError, match=f"^{paths[5]} can no longer be read"):
        list(images.batches(paths))


def test_many_are_read_every_time(paths: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crop_cache, "free_memory", lambda: 8 * 9 * 16 * 16 * 3 - 1)
    images = CropCache(paths, PREPARE, batch_size=4)
    list(images.batches(paths))
    paths[5].unlink()
    with pytest.raises(DataError, match=f"^{paths[5]} can no longer be read"):
        list(images.batches(paths))


def test_what_is_kept_holds_neither_a_batch_nor_shared_memory(paths: list[Path]) -> None:
    images = CropCache(paths[:3], PREPARE, batch_size=4)
    list(images.batches(paths, num_workers=1))
    for crop in images._kept.values():
        assert not crop.untyped_storage().is_shared()
        assert crop.untyped_storage().nbytes() == 3 * 16 * 16
