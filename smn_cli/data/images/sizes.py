"""How large images are, from their headers alone."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from statistics import median

from PIL import Image

from smn_cli.data.images.decode import FORMATS
from smn_cli.data.images.tar import open_image
from smn_cli.errors import DataError

MAX_SEEN = 200
"""Images that tell of all, evenly spaced."""


def usual_short_side(paths: Sequence[Path]) -> float:
    """Median of the shorter sides, in pixels, of images that were readable when they were checked.

    Raises:
        DataError: none is any longer.
    """
    sides = []
    for path in paths[:: -(-len(paths) // MAX_SEEN)]:
        with suppress(OSError), open_image(path) as file, Image.open(file, formats=FORMATS) as image:
            sides.append(min(image.size))
    if not sides:
        raise DataError(f"none of {len(paths)} images can be opened any more, {paths[0]} among them")
    return median(sides)
