"""Two maps of the images held out, before and after, whose points show their picture when they are touched."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from smn_cli.data.preprocessing import Preprocessing
from smn_cli.reports.figures import contact_sheet
from smn_cli.reports.gallery import file_names
from smn_cli.seeding import FIXED_SEED, named_draw

MAX_POINTS, NUM_COLOURS, SIDE = 250, 8, 64
WIDTH, HEIGHT, MARGIN = 480, 360, 12


@dataclass(frozen=True)
class MapPoint:
    """An image in a map: its place in a picture of WIDTH x HEIGHT, its cluster, its file's name."""

    x: float
    y: float
    colour: int
    name: str


@dataclass(frozen=True)
class ImageMap:
    """Maps of the same images in the same order.

    Attributes:
        maps: points by title.
        sheet: data address of all pictures, `num_columns` in a row, each `side` pixels wide and high.
        num_columns, side: of that sheet.
        num_images: held out, of which at most MAX_POINTS are shown.
    """

    maps: dict[str, list[MapPoint]]
    sheet: str
    num_columns: int
    side: int
    num_images: int
    width: int = WIDTH
    height: int = HEIGHT


def make_map(paths: Sequence[Path], preprocessing: Preprocessing, before: Tensor, after: Tensor) -> ImageMap | None:
    """PCA maps coloured by clusters of the base, which has no labels either; None of fewer images than colours.

    Args:
        paths: of the images held out.
        preprocessing: of the working size.
        before, after: (H, F) features of the two networks.
    """
    if len(paths) < NUM_COLOURS:
        return None
    shown = list(range(len(paths)))
    if len(paths) > MAX_POINTS:
        shown = sorted(named_draw(FIXED_SEED, "map").sample(shown, MAX_POINTS))
    unit = [functional.normalize(features[shown].double(), dim=1).numpy() for features in (before, after)]
    colours, names = _clusters(unit[0]), file_names(paths)
    maps = {
        title: [MapPoint(*place, colour, names[at]) for at, place, colour in zip(shown, places, colours, strict=True)]
        for title, places in zip(("before", "after"), _places(unit), strict=True)
    }
    sheet, num_columns = contact_sheet([paths[at] for at in shown], preprocessing, SIDE)
    return ImageMap(maps, sheet, num_columns, SIDE, len(paths))


def _clusters(features: NDArray[np.float64]) -> list[int]:
    """Ward's clusters of images (H, F), numbered from 0; they need no seed."""
    from scipy.cluster.hierarchy import fcluster, ward  # a fifth of the time that scikit-learn's take to load

    return [int(number) - 1 for number in fcluster(ward(features), NUM_COLOURS, criterion="maxclust")]


def _places(features: list[NDArray[np.float64]]) -> list[list[tuple[float, float]]]:
    """Of both networks' images (H, F) in their pictures."""
    maps = [_principal(each) for each in features]
    # the sign of a component is arbitrary: turn the second map the way of the first
    for component in range(2):
        if np.dot(maps[0][:, component], maps[1][:, component]) < 0:
            maps[1][:, component] *= -1
    return [_fitted(each) for each in maps]


def _principal(features: NDArray[np.float64]) -> NDArray[np.float64]:
    """(H, 2) scores of the first two principal components of features (H, F)."""
    left, scales, _ = np.linalg.svd(features - features.mean(axis=0), full_matrices=False)
    scores: NDArray[np.float64] = left[:, :2] * scales[:2]
    return scores


def _fitted(points: NDArray[np.float64]) -> list[tuple[float, float]]:
    low, high = points.min(axis=0), points.max(axis=0)
    shares = (points - low) / np.maximum(high - low, 1e-12)
    room = np.array([WIDTH - 2 * MARGIN, HEIGHT - 2 * MARGIN])
    places = MARGIN + room * np.column_stack([shares[:, 0], 1 - shares[:, 1]])
    return [(round(x, 1), round(y, 1)) for x, y in places.tolist()]
