"""Pixels of every kind of image in docs/images.md, held against a reader that is not Pillow."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from smn_cli.data.images.decode import read_image
from tests.data.images.test_plugins import dicom

LEVELS = np.add.outer(np.arange(24), 3 * np.arange(32)).astype(np.uint8)[..., None] * np.array([1, 2, 1], np.uint8)
DEEP = (np.add.outer(np.arange(24), 3 * np.arange(32)) * 512 + 77).astype(np.uint16)
REASON = "compared where this reader is installed: pip install opencv-python-headless tifffile imagecodecs"


def pixels(path: Path) -> np.ndarray:
    """As smn sees them, in integers that can be subtracted."""
    return np.asarray(read_image(path)).astype(int)


def by_opencv(path: Path) -> np.ndarray:
    """RGB, or as many channels and bits as the file has; never turned."""
    cv2 = pytest.importorskip("cv2", reason=REASON)
    found: np.ndarray = cv2.imread(str(path), cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION)
    order = {2: [], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[found.ndim if found.ndim == 2 else found.shape[2]]
    return found[..., order] if order else found


def by_tifffile(path: Path) -> np.ndarray:
    """The first page, as it is stored."""
    found: np.ndarray = pytest.importorskip("tifffile", reason=REASON).imread(path, key=0)
    return found


def grey(levels: np.ndarray) -> np.ndarray:
    return np.repeat(levels.astype(int)[..., None], 3, axis=2)


def over_white(rgba: np.ndarray) -> np.ndarray:
    """Colours (H, W, 3) of straight alpha, in floats."""
    alpha = rgba[..., 3:].astype(float) / 255
    return rgba[..., :3] * alpha + 255 * (1 - alpha)


@pytest.mark.parametrize(("suffix", "most"), [("png", 0), ("bmp", 0), ("tiff", 0), ("webp", 1), ("jpg", 2)])
def test_plain_colours(tmp_path: Path, suffix: str, most: int) -> None:
    path = tmp_path / f"a.{suffix}"
    options: dict[str, Any] = {"quality": 95} if suffix in ("webp", "jpg") else {}
    Image.fromarray(LEVELS).save(path, **options)
    assert np.abs(pixels(path) - by_opencv(path)).max() <= most


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_16_bit_grey(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(DEEP).save(path)
    found = by_opencv(path)
    assert found.dtype == np.uint16
    assert np.array_equal(pixels(path), grey(found >> 8))


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("dtype", ["u1", "u2", "f4", "i4"])
def test_deep_grey_in_both_byte_orders(tmp_path: Path, dtype: str, byteorder: Any) -> None:
    tifffile = pytest.importorskip("tifffile", reason=REASON)
    values = (DEEP >> 8 if dtype == "u1" else DEEP).astype(byteorder + dtype)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="minisblack", byteorder=byteorder)
    found = by_tifffile(tmp_path / "a.tif").astype(float)
    expected = found if dtype == "u1" else found / 256  # all lie beyond 255 and below 65,536
    assert np.array_equal(pixels(tmp_path / "a.tif"), grey(np.floor(expected)))


def test_float_grey_beyond_16_bits_is_stretched(tmp_path: Path) -> None:
    Image.fromarray(DEEP.astype(np.float32) * 9 - 7000).save(tmp_path / "a.tif")
    found = by_tifffile(tmp_path / "a.tif").astype(float)
    expected = (found - found.min()) * 255 / np.ptp(found)
    assert np.abs(pixels(tmp_path / "a.tif") - grey(expected)).max() <= 1


def test_a_palette_with_transparency(tmp_path: Path) -> None:
    palette = Image.fromarray(LEVELS).quantize(64)
    opacity = bytes(range(0, 256, 4))
    palette.save(tmp_path / "a.png", transparency=opacity)
    found = by_opencv(tmp_path / "a.png")
    assert found.shape[2] == 4
    assert len(np.unique(found[..., 3])) > 30
    assert np.abs(pixels(tmp_path / "a.png") - over_white(found)).max() <= 1


@pytest.mark.parametrize("suffix", ["png", "webp", "tiff"])
def test_alpha(tmp_path: Path, suffix: str) -> None:
    rgba = np.concatenate([LEVELS, (LEVELS[::-1, :, :1])], axis=2)
    path = tmp_path / f"a.{suffix}"
    options: dict[str, Any] = {"lossless": True, "exact": True} if suffix == "webp" else {}
    Image.fromarray(rgba).save(path, **options)
    found = by_tifffile(path) if suffix == "tiff" else by_opencv(path)  # OpenCV multiplies a TIFF's by its alpha
    assert np.abs(pixels(path) - over_white(found)).max() <= 1


def test_cmyk(tmp_path: Path) -> None:
    """Inks as fractions, as the first formula of any textbook has it; no profile."""
    Image.fromarray(LEVELS).convert("CMYK").save(tmp_path / "a.tif")
    inks = by_tifffile(tmp_path / "a.tif").astype(float) / 255
    expected = 255 * (1 - inks[..., :3]) * (1 - inks[..., 3:])
    assert np.abs(pixels(tmp_path / "a.tif") - expected).max() <= 1


def test_white_at_0(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile", reason=REASON)
    tifffile.imwrite(tmp_path / "a.tif", LEVELS[..., 0], photometric="miniswhite")
    with tifffile.TiffFile(tmp_path / "a.tif") as stored:
        assert stored.pages[0].photometric == tifffile.PHOTOMETRIC.MINISWHITE
    assert np.array_equal(pixels(tmp_path / "a.tif"), grey(255 - by_tifffile(tmp_path / "a.tif").astype(int)))


def test_the_first_of_many_pages(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile", reason=REASON)
    tifffile.imwrite(tmp_path / "a.tif", np.stack([LEVELS, 255 - LEVELS]), photometric="rgb")
    assert tifffile.imread(tmp_path / "a.tif").shape == (2, 24, 32, 3)
    assert np.array_equal(pixels(tmp_path / "a.tif"), by_tifffile(tmp_path / "a.tif"))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turned_by_exif(tmp_path: Path, orientation: int) -> None:
    cv2 = pytest.importorskip("cv2", reason=REASON)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(LEVELS).save(tmp_path / "a.jpg", quality=95, exif=exif)
    found = cv2.imread(str(tmp_path / "a.jpg"), cv2.IMREAD_COLOR)[..., ::-1].astype(int)  # turns by itself
    assert np.abs(pixels(tmp_path / "a.jpg") - found).max() <= 2


def test_numbers_beside_an_icc_profile_stay_as_they_are_stored(tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()  # not what the numbers are in
    for name in ("a.png", "a.tif"):
        Image.fromarray(LEVELS).save(tmp_path / name, icc_profile=profile)
        with Image.open(tmp_path / name) as stored:
            assert stored.info["icc_profile"] == profile
    assert np.array_equal(pixels(tmp_path / "a.tif"), by_tifffile(tmp_path / "a.tif"))
    assert np.array_equal(pixels(tmp_path / "a.png"), by_opencv(tmp_path / "a.png"))


@pytest.mark.parametrize("suffix", ["webp", "gif", "png"])
def test_the_first_frame_of_an_animation(tmp_path: Path, suffix: str) -> None:
    cv2 = pytest.importorskip("cv2", reason=REASON)
    frames = [Image.fromarray(LEVELS), Image.fromarray(255 - LEVELS), Image.new("RGB", (32, 24), "blue")]
    path = tmp_path / f"a.{suffix}"
    options: dict[str, Any] = {"lossless": True} if suffix == "webp" else {}
    frames[0].save(path, save_all=True, append_images=frames[1:], **options)
    if not cv2.haveImageReader(str(path)):  # 4.12 reads GIFs, too
        pytest.skip(f"OpenCV {cv2.__version__} reads no {suffix}")
    is_read, found = cv2.imreadanimation(str(path))[:2]
    assert is_read
    assert len(found.frames) == 3
    first = found.frames[0][..., [2, 1, 0]].astype(int)
    assert np.abs(pixels(path) - first).max() <= 1


@pytest.mark.skipif(".avif" not in Image.registered_extensions(), reason="this Pillow has no AVIF")
def test_avif(tmp_path: Path) -> None:
    Image.fromarray(LEVELS).save(tmp_path / "a.avif", quality=95)
    imagecodecs = pytest.importorskip("imagecodecs", reason=REASON)
    found = imagecodecs.avif_decode((tmp_path / "a.avif").read_bytes()).astype(int)
    assert np.abs(pixels(tmp_path / "a.avif") - found).max() <= 4  # two ways from YUV to RGB


@pytest.mark.parametrize("options", [{"lossless": True}, {"quality": 95}])
def test_jpeg_xl(tmp_path: Path, options: dict[str, Any]) -> None:
    pytest.importorskip("pillow_jxl", reason="needs the jxl extra")
    Image.fromarray(LEVELS).save(tmp_path / "a.jxl", **options)
    imagecodecs = pytest.importorskip("imagecodecs", reason=REASON)
    found = imagecodecs.jpegxl_decode((tmp_path / "a.jxl").read_bytes()).astype(int)
    assert np.abs(pixels(tmp_path / "a.jxl") - found).max() <= 1


def test_heic(tmp_path: Path) -> None:
    pillow_heif = pytest.importorskip("pillow_heif", reason="needs the heic extra")
    imagecodecs = pytest.importorskip("imagecodecs", reason=REASON)
    if not imagecodecs.HEIF.available:
        pytest.skip("imagecodecs is built without HEIF")
    pillow_heif.from_pillow(Image.fromarray(LEVELS)).save(tmp_path / "a.heic", quality=95)
    found = imagecodecs.heif_decode((tmp_path / "a.heic").read_bytes()).astype(int)
    assert np.abs(pixels(tmp_path / "a.heic") - found).max() <= 4


def test_heic_by_a_decoder_of_its_own(tmp_path: Path) -> None:
    """FFmpeg's; imagecodecs and Pillow's plugin share libheif, so that those two could be wrong together."""
    pillow_heif = pytest.importorskip("pillow_heif", reason="needs the heic extra")
    av = pytest.importorskip("av", reason="compared where this reader is installed: pip install av")
    levels = np.add.outer(np.arange(96), np.arange(128)).astype(np.uint8)  # FFmpeg shows no side below 64
    pillow_heif.from_pillow(Image.fromarray(levels).convert("RGB")).save(tmp_path / "a.heic", quality=95)
    with av.open(str(tmp_path / "a.heic")) as container:
        found = next(container.decode(video=0)).to_ndarray(format="rgb24").astype(int)
    assert np.abs(pixels(tmp_path / "a.heic") - found).max() <= 4


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"PhotometricInterpretation": "MONOCHROME1"},
        {"RescaleSlope": 2, "RescaleIntercept": -1000},
        {"PixelRepresentation": 1},
    ],
)
def test_dicom_by_a_reader_of_its_own(tmp_path: Path, fields: dict[str, Any]) -> None:
    dicomsdl = pytest.importorskip(
        "dicomsdl", reason="compared where this reader is installed: pip install dicomsdl, which has no wheel for 3.14"
    )
    stored = np.add.outer(np.arange(24), 3000 * np.arange(32))  # beyond 32,767, which is below 0 where bits are signed
    dicom(tmp_path / "a.dcm", stored, **fields)
    found = dicomsdl.open(str(tmp_path / "a.dcm")).pixelData().astype(float)
    expected = (found - found.min()) * (255 / np.ptp(found))
    expected = 255 - expected if "PhotometricInterpretation" in fields else expected
    assert np.abs(pixels(tmp_path / "a.dcm") - grey(np.floor(expected))).max() <= 1
