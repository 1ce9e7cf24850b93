"""Formats beyond Pillow's own, read where their package is installed."""

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, features

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "DIB", "TIFF", "GIF")
"""What Pillow decodes everywhere, whatever a file's name says; it would start Ghostscript for PostScript."""
DICOM_SUFFIXES = frozenset({".dcm", ".dicom"})
_PACKAGES = {
    ".heic": ("pillow_heif", "heic"),
    ".heif": ("pillow_heif", "heic"),
    ".jxl": ("pillow_jxl", "jxl"),
    **dict.fromkeys(DICOM_SUFFIXES, ("pydicom", "dicom")),
}
"""Module and extra of smn-cli by suffix."""


@cache
def formats() -> tuple[str, ...]:
    """Formats that Pillow can be asked for, those of installed plugins too."""
    found = [*FORMATS]
    if features.check("avif"):
        found.append("AVIF")
    if find_spec("pillow_heif") is not None:
        import pillow_heif

        pillow_heif.register_heif_opener()
        found.append("HEIF")
    if find_spec("pillow_jxl") is not None:
        import pillow_jxl  # noqa: F401  # registers itself

        found.append("JXL")
    return tuple(found)


def why_not(path: Path) -> str:
    """Why a file that Pillow did not know is no image, or what would read it."""
    suffix = path.suffix.lower()
    module, extra = _PACKAGES.get(suffix, ("", ""))
    if module and find_spec(module) is None:
        return f"{suffix[1:].upper()} images are read with an extra: pip install 'smn-cli[{extra}]'"
    if suffix == ".avif" and not features.check("avif"):
        return "AVIF images are read by Pillow 11.3 or later: pip install -U pillow"
    return "not a readable JPEG, PNG, WebP, BMP, TIFF or GIF image"


def open_dicom(file: BinaryIO) -> Image.Image:
    """The first frame of a DICOM file as 8-bit grey or RGB.

    Stored values go through the file's own modality and window tables; grey is then stretched over what is left, and
    turned over where the file says that low is white.

    Raises:
        ImportError, AttributeError, ValueError and others of pydicom: it holds no pixels that can be decoded.
    """
    from pydicom import dcmread
    from pydicom.pixels import apply_modality_lut, apply_voi_lut, pixel_array

    dataset = dcmread(file)
    frame = pixel_array(dataset, index=0)  # in RGB, whatever the file's own colours are
    if frame.ndim == 3:
        return Image.fromarray(frame.astype(np.uint8))
    values = apply_voi_lut(apply_modality_lut(frame, dataset), dataset).astype(np.float64)
    low, high = float(values.min()), float(values.max())
    levels = np.zeros_like(values) if high <= low else (values - low) * (255 / (high - low))
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        levels = 255 - levels
    return Image.fromarray(levels.astype(np.uint8))
