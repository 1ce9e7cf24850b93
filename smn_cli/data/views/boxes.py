"""Where random views are cut: torchvision's RandomResizedCrop, for many images and views at once."""

from math import log

import numpy as np

NUM_TRIES = 10
"""Area and aspect are drawn until a box fits its image; after so many misses it is the largest central one."""


def draw_places(num_images: int, num_views: int, generator: np.random.Generator) -> np.ndarray:
    """(num_images, num_views, 2 NUM_TRIES + 2) uniform draws, all that boxes need; whatever the images' sizes are."""
    return generator.random((num_images, num_views, 2 * NUM_TRIES + 2))


def fit_boxes(
    places: np.ndarray, sides: np.ndarray, area: tuple[float, float], aspect: tuple[float, float]
) -> np.ndarray:
    """Boxes in images of known sizes.

    The area is uniform, the aspect uniform in its logarithm, the position uniform among those that fit.

    Args:
        places: (B, V, 2 NUM_TRIES + 2) from `draw_places`.
        sides: (B, 2) integers, width and height in pixels.
        area: least and most share of the image.
        aspect: least and most width over height.

    Returns:
        (B, V, 4) integers: top, left, height, width.
    """
    shares, aspects = places[..., :NUM_TRIES], places[..., NUM_TRIES:-2]
    width, height = np.asarray(sides)[:, :, None, None].transpose(1, 0, 2, 3)
    areas = (area[0] + shares * (area[1] - area[0])) * (width * height)
    ratios = np.exp(log(aspect[0]) + aspects * (log(aspect[1]) - log(aspect[0])))
    widths = np.rint(np.sqrt(areas * ratios)).astype(np.int64)
    heights = np.rint(np.sqrt(areas / ratios)).astype(np.int64)
    fits = (widths > 0) & (heights > 0) & (widths <= width) & (heights <= height)
    first = fits.argmax(axis=2)[:, :, None]
    has_one = fits.any(axis=2)
    width, height = width[:, :, 0], height[:, :, 0]
    widest, highest = _largest(width, height, aspect)
    box_width = np.where(has_one, np.take_along_axis(widths, first, axis=2)[:, :, 0], widest)
    box_height = np.where(has_one, np.take_along_axis(heights, first, axis=2)[:, :, 0], highest)
    room_above, room_beside = height - box_height, width - box_width
    top = np.where(has_one, np.floor(places[..., -2] * (room_above + 1)).astype(np.int64), room_above // 2)
    left = np.where(has_one, np.floor(places[..., -1] * (room_beside + 1)).astype(np.int64), room_beside // 2)
    return np.stack([top, left, box_height, box_width], axis=2)


def _largest(width: np.ndarray, height: np.ndarray, aspect: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Width and height of the largest boxes of a permitted aspect."""
    low, high = aspect
    ratio = width / height
    box_width = np.where(ratio > high, np.rint(height * high), width).astype(np.int64)
    box_height = np.where(ratio < low, np.rint(width / low), height).astype(np.int64)
    return box_width, box_height
