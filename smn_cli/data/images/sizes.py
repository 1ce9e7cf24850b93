"""How large images are, from their headers alone."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from statistics import median

from smn_cli.data.images.decode import BadImageError, image_size
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
        with suppress(BadImageError):
            sides.append(min(image_size(path)))
    if not sides:
        raise DataError(f"none of {len(paths)} images can be opened any more, {paths[0]} among them")
    return median(sides)
