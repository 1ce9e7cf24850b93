"""One image, a file or a member of an archive, to RGB pixels, whatever its mode; or a clear reason why not."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from smn_cli.data.images.archives import open_image
from smn_cli.data.images.plugins import DICOM_SUFFIXES, formats, open_dicom, why_not
from smn_cli.errors import DataError

MAX_PIXELS = 100_000_000
"""Largest image that is decoded: about 300 MB as RGB. Larger ones are far more often bombs than photographs."""
_STRIP_PIXELS = 1 << 20
MIN_SIDE = 2


class BadImageError(DataError):
    """A file that cannot be used as an image; the message is the reason, without the path."""


class _Silence:
    """No warnings while any thread is inside: filters are the process's, so the last one out puts them back."""

    def __init__(self) -> None:
        self._lock, self._num_inside = Lock(), 0
        self._filters = warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            if self._num_inside == 0:
                self._filters = warnings.catch_warnings()
                self._filters.__enter__()
                warnings.simplefilter("ignore")
            self._num_inside += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._num_inside -= 1
            if self._num_inside == 0:
                self._filters.__exit__(None, None, None)


_SILENCE = _Silence()


def read_image(path: str | Path, *, least_side: int | None = None) -> Image.Image:
    """Decode a file to an upright 8-bit RGB image.

    The first frame counts; EXIF orientation is applied; grey is repeated over the channels; transparency is laid over
    white; CMYK is converted. 16-bit grey keeps its high byte. 32-bit and float grey is taken as 8-bit if it lies in
    0-255, as 16-bit if in 0-65535, and is stretched over its own range otherwise, or if it lies in 0-1.

    Args:
        path: of the file.
        least_side: reduce the image by a whole factor, as far as its shorter side keeps this many pixels; a JPEG is
            decoded at a half, a quarter or an eighth, which takes a fraction of the time. None keeps all pixels.

    Raises:
        BadImageError: the file is unreadable, truncated, larger than 100 million pixels or narrower than 2.
    """
    with _opened(path) as image:
        image.seek(0)
        if least_side is not None:
            image.draft(None, (least_side, least_side))
        ImageOps.exif_transpose(image, in_place=True)  # else it copies what is upright already
        return _reduced(_rgb(image), least_side)


def image_size(path: str | Path) -> tuple[int, int]:
    """Width and height in pixels, from the header alone.

    Raises:
        BadImageError: as in `read_image`, but for pixels that cannot be decoded.
    """
    with _opened(path) as image:
        return image.size


@contextmanager
def _opened(path: str | Path) -> Iterator[Image.Image]:
    """An image of a size that can be used; whatever goes wrong with it becomes a BadImageError."""
    try:
        # Pillow warns of oddities (metadata, palettes) that do not concern the pixels, and of bombs, refused below
        with _SILENCE:
            # given a path, Pillow maps plain TIFFs into memory and garbles those that EXIF turns on their side
            is_dicom = Path(path).suffix.lower() in DICOM_SUFFIXES and find_spec("pydicom") is not None
            with open_image(Path(path)) as file, _decoder(file, is_dicom=is_dicom) as image:
                width, height = image.size
                if width * height > MAX_PIXELS:
                    raise BadImageError(f"{width} x {height} pixels: more than {MAX_PIXELS // 10**6} million")
                if min(width, height) < MIN_SIDE:
                    raise BadImageError(f"{width} x {height} pixels: too small")
                yield image
    except BadImageError:
        raise
    except UnidentifiedImageError:
        raise BadImageError(why_not(Path(path))) from None
    except OSError as error:  # its own text may hold the path
        raise BadImageError(_line(error.strerror or str(error) or type(error).__name__)) from None
    except Exception as error:  # decoders of hostile files raise anything: struct.error, IndexError, MemoryError...
        raise BadImageError(_line(f"{type(error).__name__}: {str(error) or 'not decodable'}")) from None


def _decoder(file: BinaryIO, *, is_dicom: bool) -> Image.Image:
    return open_dicom(file) if is_dicom else Image.open(file, formats=formats())


def upright_rgb(image: Image.Image) -> Image.Image:
    """A new image, upright 8-bit RGB, of an opened one, converted as `read_image` says."""
    return _rgb(ImageOps.exif_transpose(image))


def _rgb(image: Image.Image) -> Image.Image:
    """An upright image as 8-bit RGB; itself if it is that."""
    image.load()
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        return _from_deep_grey(np.asarray(image)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _reduced(image: Image.Image, least_side: int | None) -> Image.Image:
    factor = min(image.size) // least_side if least_side is not None else 1
    return image.reduce(factor) if factor > 1 else image


def _from_deep_grey(values: np.ndarray) -> Image.Image:
    """8-bit grey of 32-bit or float grey values (H, W), in strips: the whole in doubles is eight times the file."""
    height, width = values.shape
    rows = max(1, _STRIP_PIXELS // width)
    strips = [slice(first, first + rows) for first in range(0, height, rows)]
    ends = [(float(strip.min()), float(strip.max())) for strip in (_numbers(values[part]) for part in strips)]
    low, high = min(end[0] for end in ends), max(end[1] for end in ends)
    levels = np.zeros(values.shape, dtype=np.uint8)
    for part in strips:
        strip = _numbers(values[part])
        if low >= 0 and 255 < high <= 65535:
            levels[part] = (strip / 256).astype(np.uint8)
        elif low >= 0 and high <= 255 and high > 1:
            levels[part] = strip.astype(np.uint8)
        elif high > low:
            levels[part] = ((strip - low) * (255 / (high - low))).astype(np.uint8)
    return Image.fromarray(levels)


def _numbers(values: np.ndarray) -> np.ndarray:
    return np.nan_to_num(values.astype(np.float64))


def _line(text: str) -> str:
    return text.splitlines()[0]
