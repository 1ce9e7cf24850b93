"""An image that is far larger than needed is read at a whole fraction of its size."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from smn_cli.data.images.decode import BadImageError, read_image


def photograph(width: int, height: int) -> Image.Image:
    """Smooth colours without symmetry."""
    coarse = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("suffix", ["jpg", "png"])
@pytest.mark.parametrize(("size", "least_side"), [((301, 200), 33), ((200, 301), 100), ((97, 64), 16), ((640, 63), 7)])
def test_the_shorter_side_keeps_the_least_and_less_than_twice_of_it(
    suffix: str, size: tuple[int, int], least_side: int, tmp_path: Path
) -> None:
    photograph(*size).save(tmp_path / f"a.{suffix}")
    found = read_image(tmp_path / f"a.{suffix}", least_side=least_side)
    assert least_side <= min(found.size) < 2 * least_side
    factor = min(size) / min(found.size)
    assert max(found.size) == pytest.approx(max(size) / factor, abs=0.02 * max(found.size) + 1)


@pytest.mark.parametrize("suffix", ["jpg", "png"])
@pytest.mark.parametrize("least_side", [33, 50, 99, 101])
def test_a_reduced_image_shows_what_the_whole_one_does(suffix: str, least_side: int, tmp_path: Path) -> None:
    photograph(300, 200).save(tmp_path / f"a.{suffix}", quality=95)
    found = read_image(tmp_path / f"a.{suffix}", least_side=least_side)
    factor = round(200 / min(found.size))
    # a last row or column that stands for fewer pixels than the others is left out
    columns, rows = 300 // factor, 200 // factor
    whole = read_image(tmp_path / f"a.{suffix}").crop((0, 0, columns * factor, rows * factor))
    expected = np.asarray(whole.resize((columns, rows), Image.Resampling.BOX)).astype(int)
    assert np.abs(np.asarray(found)[:rows, :columns] - expected).mean() < 1


@pytest.mark.parametrize("suffix", ["jpg", "png"])
@pytest.mark.parametrize("least_side", [101, 200, 5000])
def test_an_image_less_than_twice_too_large_keeps_all_its_pixels(suffix: str, least_side: int, tmp_path: Path) -> None:
    photograph(300, 200).save(tmp_path / f"a.{suffix}")
    found = read_image(tmp_path / f"a.{suffix}", least_side=least_side)
    np.testing.assert_array_equal(np.asarray(found), np.asarray(read_image(tmp_path / f"a.{suffix}")))


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_a_reduced_image_is_upright(suffix: str, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    photograph(300, 200).save(tmp_path / f"a.{suffix}", exif=exif)
    found = read_image(tmp_path / f"a.{suffix}", least_side=50)
    assert found.size == (50, 75)
    expected = photograph(300, 200).rotate(-90, expand=True).resize((50, 75), Image.Resampling.BOX)
    assert np.abs(np.asarray(found).astype(int) - np.asarray(expected)).mean() < 3


def test_grey_and_cmyk_files_are_reduced_too(tmp_path: Path) -> None:
    for mode in ("L", "CMYK"):
        photograph(320, 160).convert(mode).save(tmp_path / f"{mode}.jpg")
        found = read_image(tmp_path / f"{mode}.jpg", least_side=20)
        assert (found.mode, found.size) == ("RGB", (40, 20))


def test_a_truncated_file_is_refused_at_any_size(tmp_path: Path) -> None:
    photograph(320, 160).save(tmp_path / "a.jpg")
    whole = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BadImageError, match="truncated"):
        read_image(tmp_path / "a.jpg", least_side=20)
