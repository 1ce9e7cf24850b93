"""What images' headers tell of their size."""

from pathlib import Path

import pytest
from PIL import Image

from smn_cli.data.images.sizes import MAX_SEEN, usual_short_side
from smn_cli.errors import DataError


def saved(folder: Path, *sizes: tuple[int, int]) -> list[Path]:
    paths = [folder / f"{number:04d}.png" for number in range(len(sizes))]
    for path, size in zip(paths, sizes, strict=True):
        Image.new("RGB", size).save(path)
    return paths


def test_the_shorter_side_in_the_middle_of_all(tmp_path: Path) -> None:
    paths = saved(tmp_path, (30, 90), (80, 20), (50, 50))
    assert usual_short_side(paths) == 30
    paths[0].write_bytes(b"no longer")
    assert usual_short_side(paths) == 35


def test_a_spread_of_many_tells_of_all(tmp_path: Path) -> None:
    small, large = saved(tmp_path, (4, 8), (8, 16))
    assert usual_short_side([small] * 3 * MAX_SEEN + [large] * 2 * MAX_SEEN) == 4
    assert usual_short_side([small] * 2 * MAX_SEEN + [large] * 3 * MAX_SEEN) == 8


def test_images_that_are_gone_are_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none of 1 images can be opened any more, .*gone\.png"):
        usual_short_side([tmp_path / "gone.png"])
