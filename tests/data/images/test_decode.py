"""Any image of the supported kinds becomes the right upright RGB pixels."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from smn_cli.data.images.decode import _opened, read_image, upright_rgb

PATTERN = np.array([[10, 60, 110, 160], [210, 250, 30, 80], [130, 180, 230, 0]], dtype=np.uint8)
"""Grey values of a 4 x 3 picture in which no two pixels are alike."""


def colours(height: int = 24, width: int = 32) -> np.ndarray:
    """A smooth colour gradient, which lossy formats keep well."""
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack([rows * 8, columns * 6, 250 - rows * 4], axis=2).astype(np.uint8)


def read(path: Path) -> np.ndarray:
    """Pixels of a file as smn sees them."""
    image = read_image(path)
    assert image.mode == "RGB"
    return np.asarray(image)


def grey_rgb(values: Any) -> np.ndarray:
    """Grey repeated over the channels."""
    return np.repeat(np.asarray(values, dtype=np.uint8)[:, :, None], 3, axis=2)


@pytest.mark.parametrize(("suffix", "options"), [("png", {}), ("bmp", {}), ("tiff", {}), ("webp", {"lossless": True})])
def test_lossless_formats_keep_every_pixel(tmp_path: Path, suffix: str, options: dict[str, Any]) -> None:
    path = tmp_path / f"image.{suffix}"
    Image.fromarray(colours()).save(path, **options)
    np.testing.assert_array_equal(read(path), colours())


@pytest.mark.parametrize(("suffix", "options"), [("jpg", {"quality": 95}), ("webp", {"quality": 95})])
def test_lossy_formats_keep_the_picture(tmp_path: Path, suffix: str, options: dict[str, Any]) -> None:
    path = tmp_path / f"image.{suffix}"
    Image.fromarray(colours()).save(path, **options)
    # what 95 % quality may change on a smooth gradient
    assert np.abs(read(path).astype(int) - colours()).mean() < 3


def test_of_a_gif_the_first_frame_counts(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(read(tmp_path / "a.gif"), np.full((8, 8, 3), (255, 0, 0)))


def test_of_a_tiff_the_first_page_counts(tmp_path: Path) -> None:
    pages = [Image.fromarray(PATTERN), Image.fromarray(255 - PATTERN)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    np.testing.assert_array_equal(read(tmp_path / "a.tif"), grey_rgb(PATTERN))


def test_the_name_does_not_decide_what_a_file_is(tmp_path: Path) -> None:
    Image.fromarray(colours()).save(tmp_path / "a.jpg", format="PNG")
    np.testing.assert_array_equal(read(tmp_path / "a.jpg"), colours())


def test_grey_is_repeated_over_the_channels(tmp_path: Path) -> None:
    Image.fromarray(PATTERN).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read(tmp_path / "a.png"), grey_rgb(PATTERN))


def test_one_bit_is_black_and_white(tmp_path: Path) -> None:
    Image.fromarray(PATTERN > 100).save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as stored:
        assert stored.mode == "1"
    np.testing.assert_array_equal(read(tmp_path / "a.png"), grey_rgb(np.where(PATTERN > 100, 255, 0)))


def palette_image(transparent: int | bytes | None, path: Path) -> None:
    """Left half red (entry 0), right half blue (entry 1)."""
    image = Image.new("P", (4, 2))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.paste(1, (2, 0, 4, 2))
    options: dict[str, Any] = {} if transparent is None else {"transparency": transparent}
    image.save(path, **options)


def test_a_palette_gives_its_colours(tmp_path: Path) -> None:
    palette_image(None, tmp_path / "a.png")
    np.testing.assert_array_equal(read(tmp_path / "a.png")[0], [[255, 0, 0]] * 2 + [[0, 0, 255]] * 2)


@pytest.mark.parametrize(("transparency", "right"), [(1, [255, 255, 255]), (bytes([255, 51]), [204, 204, 255])])
def test_transparent_palette_entries_are_laid_over_white(
    tmp_path: Path, transparency: int | bytes, right: list[int]
) -> None:
    palette_image(transparency, tmp_path / "a.png")  # 51 / 255 is a fifth of blue, four fifths of white
    np.testing.assert_array_equal(read(tmp_path / "a.png")[0], [[255, 0, 0]] * 2 + [right] * 2)


@pytest.mark.parametrize("suffix", ["png", "webp", "tiff"])
def test_alpha_is_laid_over_white(tmp_path: Path, suffix: str) -> None:
    pixels = np.zeros((4, 4, 4), dtype=np.uint8)
    pixels[0] = (255, 0, 0, 255)  # opaque red stays
    pixels[1] = (255, 0, 0, 0)  # invisible red is white
    pixels[2] = (0, 0, 0, 51)  # a fifth of black
    pixels[3] = (0, 255, 0, 204)  # four fifths of green
    path = tmp_path / f"a.{suffix}"
    options: dict[str, Any] = {"lossless": True, "exact": True} if suffix == "webp" else {}
    Image.fromarray(pixels).save(path, **options)
    np.testing.assert_array_equal(read(path)[:, 0], [[255, 0, 0], [255, 255, 255], [204, 204, 204], [51, 255, 51]])


def test_grey_with_alpha_is_laid_over_white(tmp_path: Path) -> None:
    pixels = np.array([[[100, 255], [100, 0]], [[0, 51], [255, 128]]], dtype=np.uint8)
    Image.fromarray(pixels, mode=None).save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as stored:
        assert stored.mode == "LA"
    np.testing.assert_array_equal(read(tmp_path / "a.png"), grey_rgb([[100, 255], [204, 255]]))


def test_cmyk_is_converted(tmp_path: Path) -> None:
    inks = np.zeros((16, 32, 4), dtype=np.uint8)
    inks[:, 16:, 0] = 255  # cyan on the right, bare paper on the left
    Image.fromarray(inks, mode="CMYK").save(tmp_path / "a.tiff")
    np.testing.assert_array_equal(read(tmp_path / "a.tiff")[0, [0, 31]], [[255, 255, 255], [0, 255, 255]])
    Image.fromarray(inks, mode="CMYK").save(tmp_path / "a.jpg", quality=95)
    assert np.abs(read(tmp_path / "a.jpg")[0, [0, 31]].astype(int) - [[255, 255, 255], [0, 255, 255]]).max() < 8


@pytest.mark.parametrize("suffix", ["png", "tiff"])
@pytest.mark.parametrize("shift", [8, 0])
def test_16_bit_grey_keeps_its_high_byte_however_dark_it_is(tmp_path: Path, suffix: str, shift: int) -> None:
    values = PATTERN.astype(np.uint16) << shift | 7
    Image.fromarray(values).save(tmp_path / f"a.{suffix}")
    np.testing.assert_array_equal(read(tmp_path / f"a.{suffix}"), grey_rgb(values >> 8))


FLOATS: list[tuple[str, Callable[[np.ndarray], np.ndarray], np.ndarray]] = [
    ("in 0-255 as it is", lambda v: v, PATTERN),
    ("in 0-65535 by its high byte", lambda v: v * 256 + 3, PATTERN),
    ("in 0-1 stretched", lambda v: v / 250, (PATTERN / 250 * 255)),
    ("below 0 stretched", lambda v: v - 125, (PATTERN / 250 * 255)),
    ("beyond 65535 stretched", lambda v: v * 1e6, (PATTERN / 250 * 255)),
]


@pytest.mark.parametrize(("make", "expected"), [entry[1:] for entry in FLOATS], ids=[entry[0] for entry in FLOATS])
def test_float_grey_is(tmp_path: Path, make: Callable[[np.ndarray], np.ndarray], expected: np.ndarray) -> None:
    Image.fromarray(make(PATTERN.astype(np.float32)).astype(np.float32)).save(tmp_path / "a.tiff")
    # truncation of a float32 value that may lie a hair below a whole number
    assert np.abs(read(tmp_path / "a.tiff").astype(int) - grey_rgb(expected)).max() <= 1


def test_float_grey_without_any_contrast_and_with_gaps_is_readable(tmp_path: Path) -> None:
    values = np.full((4, 4), -3.0, dtype=np.float32)
    Image.fromarray(values).save(tmp_path / "flat.tiff")
    np.testing.assert_array_equal(read(tmp_path / "flat.tiff"), np.zeros((4, 4, 3)))
    values = np.array([[np.nan, 100.0], [200.0, 50.0]], dtype=np.float32)
    Image.fromarray(values).save(tmp_path / "gap.tiff")
    np.testing.assert_array_equal(read(tmp_path / "gap.tiff"), grey_rgb([[0, 100], [200, 50]]))


UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: np.transpose,
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(np.transpose(a), 2),
    8: lambda a: np.rot90(a, 1),
}
"""What the EXIF standard asks a viewer to do with the stored rows and columns."""


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int, suffix: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(PATTERN).save(path, exif=exif)
    np.testing.assert_array_equal(read(path), grey_rgb(UPRIGHT[orientation](PATTERN)))


def test_an_image_of_somebody_elses_stays_as_it_is() -> None:
    image = Image.fromarray(colours())
    image.getexif()[274] = 6
    turned = upright_rgb(image)
    turned.paste((0, 0, 0), (0, 0, 4, 4))
    np.testing.assert_array_equal(np.asarray(image), colours())
    assert image.getexif()[274] == 6
    assert turned.size == (24, 32)
    upright = Image.fromarray(colours())
    upright_rgb(upright).paste((0, 0, 0), (0, 0, 4, 4))
    np.testing.assert_array_equal(np.asarray(upright), colours())


def test_deep_grey_in_strips_is_deep_grey(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.linspace(-7.5, 91.25, 40 * 30, dtype=np.float32).reshape(40, 30)
    values[3, 4] = np.nan
    Image.fromarray(values).save(tmp_path / "a.tiff")
    whole = np.asarray(read_image(tmp_path / "a.tiff"))
    monkeypatch.setattr("smn_cli.data.images.decode._STRIP_PIXELS", 100)
    assert np.array_equal(np.asarray(read_image(tmp_path / "a.tiff")), whole)
    numbers = np.nan_to_num(values.astype(np.float64))
    expected = ((numbers - numbers.min()) * (255 / (numbers.max() - numbers.min()))).astype(np.uint8)
    assert np.array_equal(whole[..., 0], expected)


def test_warnings_are_as_before_when_the_last_of_several_threads_has_decoded(tmp_path: Path) -> None:
    """In whatever order they end: here the first to begin ends first."""
    Image.fromarray(colours()).save(tmp_path / "a.png")
    filters = list(warnings.filters)
    one, other = _opened(tmp_path / "a.png"), _opened(tmp_path / "a.png")
    one.__enter__()
    other.__enter__()
    one.__exit__(None, None, None)
    warnings.warn("of an image", stacklevel=1)  # an error here, were the other not silent still
    other.__exit__(None, None, None)
    assert list(warnings.filters) == filters
