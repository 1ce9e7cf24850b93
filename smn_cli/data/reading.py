"""One image file to RGB pixels, whatever its mode; or a clear reason why not."""

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from smn_cli.errors import DataError

MAX_PIXELS = 100_000_000
"""Largest image that is decoded: about 300 MB as RGB. Larger ones are far more often bombs than photographs."""
MIN_SIDE = 2


class BadImageError(DataError):
    """A file that cannot be used as an image; the message is the reason, without the path."""


def read_image(path: str | Path) -> Image.Image:
    """Decode a file to an upright 8-bit RGB image.

    The first frame counts; EXIF orientation is applied; grey is repeated over the channels; transparency is laid over
    white; CMYK is converted; 16-bit grey keeps its high byte, and integer or float grey outside 0-65535 is stretched
    over its own range.

    Raises:
        BadImageError: the file is unreadable, truncated, larger than 100 million pixels or narrower than 2.
    """
    try:
        # Pillow warns of oddities (metadata, palettes) that do not concern the pixels, and of bombs, refused below
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as image:
                width, height = image.size
                if width * height > MAX_PIXELS:
                    raise BadImageError(f"{width} x {height} pixels: more than {MAX_PIXELS // 10**6} million")
                if min(width, height) < MIN_SIDE:
                    raise BadImageError(f"{width} x {height} pixels: too small")
                image.seek(0)
                return _to_rgb(ImageOps.exif_transpose(image))
    except BadImageError:
        raise
    except Exception as error:  # decoders of hostile files raise anything: struct.error, IndexError, MemoryError...
        raise BadImageError(f"{type(error).__name__}: {str(error) or 'not decodable'}".splitlines()[0]) from None


def _to_rgb(image: Image.Image) -> Image.Image:
    image.load()
    if image.mode.startswith("I") or image.mode == "F":
        return _from_deep_grey(np.asarray(image)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")


def _from_deep_grey(values: np.ndarray) -> Image.Image:
    """8-bit grey of 16-bit, 32-bit or float grey values (H, W)."""
    values = np.nan_to_num(values.astype(np.float64))
    low, high = float(values.min()), float(values.max())
    if low >= 0 and 255 < high <= 65535:
        scaled = values / 256
    elif low >= 0 and high <= 255 and high > 1:
        scaled = values
    else:
        scaled = (values - low) * (255 / (high - low)) if high > low else np.zeros_like(values)
    return Image.fromarray(scaled.astype(np.uint8), mode="L")
