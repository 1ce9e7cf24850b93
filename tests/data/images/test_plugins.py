"""Formats as people have them, each held against a reference reader, or named with the extra that reads it."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from smn_cli.data.images import plugins
from smn_cli.data.images.decode import BadImageError, image_size, read_image
from smn_cli.data.images.find import find_images

LEVELS = np.add.outer(np.arange(24), 3 * np.arange(32)).astype(np.uint8)[..., None] * np.array([1, 2, 1], np.uint8)


def pixels(path: Path) -> np.ndarray:
    return np.asarray(read_image(path)).astype(int)


@pytest.mark.skipif(".avif" not in Image.registered_extensions(), reason="this Pillow has no AVIF")
def test_avif(tmp_path: Path) -> None:
    Image.fromarray(LEVELS).save(tmp_path / "a.avif", quality=100)
    assert find_images([tmp_path]) == [tmp_path / "a.avif"]
    assert np.abs(pixels(tmp_path / "a.avif") - LEVELS).max() < 20


def test_heic_is_what_pillow_heif_decodes(tmp_path: Path) -> None:
    pillow_heif = pytest.importorskip("pillow_heif", reason="needs the heic extra")
    pillow_heif.from_pillow(Image.fromarray(LEVELS)).save(tmp_path / "a.heic", quality=90)
    expected = np.asarray(pillow_heif.open_heif(tmp_path / "a.heic").to_pillow().convert("RGB"))
    assert np.array_equal(pixels(tmp_path / "a.heic"), expected)
    assert image_size(tmp_path / "a.heic") == (32, 24)


def test_jpeg_xl_without_loss(tmp_path: Path) -> None:
    pytest.importorskip("pillow_jxl", reason="needs the jxl extra")
    Image.fromarray(LEVELS).save(tmp_path / "a.jxl", lossless=True)
    assert np.array_equal(pixels(tmp_path / "a.jxl"), LEVELS)


def dicom(path: Path, stored: np.ndarray, **fields: object) -> None:
    """A file of 16-bit grey."""
    pydicom = pytest.importorskip("pydicom", reason="needs the dicom extra")
    meta = pydicom.dataset.FileMetaDataset()
    meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = pydicom.uid.SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    dataset = pydicom.dataset.FileDataset(str(path), {}, file_meta=meta, preamble=bytes(128))
    dataset.Rows, dataset.Columns = stored.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 0
    dataset.PixelData = stored.astype("<u2").tobytes()
    for name, value in fields.items():
        setattr(dataset, name, value)
    dataset.save_as(path, enforce_file_format=True)


STORED = np.add.outer(np.arange(24), 100 * np.arange(32))


@pytest.mark.parametrize("photometric", ["MONOCHROME2", "MONOCHROME1"])
def test_dicom_is_stretched_and_turned_over_where_low_is_white(tmp_path: Path, photometric: str) -> None:
    dicom(tmp_path / "a.dcm", STORED, PhotometricInterpretation=photometric)
    expected = (STORED - STORED.min()) * (255 / np.ptp(STORED))
    expected = 255 - expected if photometric == "MONOCHROME1" else expected
    assert np.array_equal(pixels(tmp_path / "a.dcm")[..., 1], expected.astype(np.uint8))
    assert image_size(tmp_path / "a.dcm") == (32, 24)


def test_dicom_through_its_own_window(tmp_path: Path) -> None:
    window = {"RescaleSlope": 2, "RescaleIntercept": -1000, "WindowCenter": 400.5, "WindowWidth": 1001}
    dicom(tmp_path / "a.dcm", STORED, **window)
    values = np.clip(2 * STORED - 1000, -100, 900)  # PS3.3 C.11.2: width 1001 about 400.5
    expected = (values - values.min()) * (255 / np.ptp(values))
    assert np.abs(pixels(tmp_path / "a.dcm")[..., 0] - expected).max() <= 1


def test_a_dicom_file_without_pixels_is_one_bad_image(tmp_path: Path) -> None:
    pytest.importorskip("pydicom", reason="needs the dicom extra")
    (tmp_path / "a.dcm").write_bytes(bytes(128) + b"DICM")
    with pytest.raises(BadImageError) as caught:
        read_image(tmp_path / "a.dcm")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "words"), [("a.heic", "smn-cli[heic]"), ("a.JXL", "smn-cli[jxl]"), ("a.dcm", "smn-cli[dicom]")]
)
def test_without_its_package_a_file_is_told_with_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, words: str
) -> None:
    for room in ("plugins", "decode"):
        monkeypatch.setattr(f"smn_cli.data.images.{room}.find_spec", lambda _name: None)
    monkeypatch.setattr("smn_cli.data.images.decode.formats", lambda: plugins.FORMATS)
    (tmp_path / name).write_bytes(b"\0" * 200)
    with pytest.raises(BadImageError, match="pip install") as caught:
        read_image(tmp_path / name)
    assert words in str(caught.value)


def test_cmyk_palettes_and_pages(tmp_path: Path) -> None:
    """What Pillow's own formats hold: converted as Pillow converts, the first page alone."""
    image = Image.fromarray(LEVELS)
    image.convert("CMYK").save(tmp_path / "cmyk.tif")
    assert np.array_equal(pixels(tmp_path / "cmyk.tif"), np.asarray(image.convert("CMYK").convert("RGB")))
    image.save(tmp_path / "pages.tif", save_all=True, append_images=[Image.new("RGB", image.size, "red")])
    assert np.array_equal(pixels(tmp_path / "pages.tif"), LEVELS)
    palette = image.convert("P", palette=Image.Palette.ADAPTIVE)
    palette.info["transparency"] = 0
    palette.save(tmp_path / "p.png", transparency=0)
    shown = Image.open(BytesIO((tmp_path / "p.png").read_bytes())).convert("RGBA")
    white = Image.alpha_composite(Image.new("RGBA", shown.size, "white"), shown).convert("RGB")
    assert np.array_equal(pixels(tmp_path / "p.png"), np.asarray(white))
    frames = [image, Image.new("RGB", image.size, "blue")]
    frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:], lossless=True)
    assert np.array_equal(pixels(tmp_path / "a.webp"), LEVELS)
    image.convert("L").save(tmp_path / "white.tif", tiffinfo={262: 0})
    with Image.open(tmp_path / "white.tif") as reference:
        assert np.array_equal(pixels(tmp_path / "white.tif"), np.asarray(reference.convert("RGB")))
