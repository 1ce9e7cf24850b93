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
    from sklearn.cluster import KMeans

    if len(paths) < NUM_COLOURS:
        return None
    unit = [functional.normalize(features.double(), dim=1).numpy() for features in (before, after)]
    colours = KMeans(NUM_COLOURS, n_init=1, random_state=FIXED_SEED).fit_predict(unit[0]).tolist()
    shown = list(range(len(paths)))
    if len(paths) > MAX_POINTS:
        shown = sorted(named_draw(FIXED_SEED, "map").sample(shown, MAX_POINTS))
    names = file_names(paths)
    maps = {
        title: [MapPoint(*places[at], colours[at], names[at]) for at in shown]
        for title, places in zip(("before", "after"), _places(unit), strict=True)
    }
    sheet, num_columns = contact_sheet([paths[at] for at in shown], preprocessing, SIDE)
    return ImageMap(maps, sheet, num_columns, SIDE, len(paths))


def _places(features: list[NDArray[np.float64]]) -> list[list[tuple[float, float]]]:
    """Of both networks' images (H, F) in their pictures."""
    from sklearn.decomposition import PCA

    maps = [PCA(2, random_state=FIXED_SEED).fit_transform(each) for each in features]
    # the sign of a component is arbitrary: turn the second map the way of the first
    for component in range(2):
        if np.dot(maps[0][:, component], maps[1][:, component]) < 0:
            maps[1][:, component] *= -1
    return [_fitted(each) for each in maps]


def _fitted(points: NDArray[np.float64]) -> list[tuple[float, float]]:
    low, high = points.min(axis=0), points.max(axis=0)
    shares = (points - low) / np.maximum(high - low, 1e-12)
    room = np.array([WIDTH - 2 * MARGIN, HEIGHT - 2 * MARGIN])
    places = MARGIN + room * np.column_stack([shares[:, 0], 1 - shares[:, 1]])
    return [(round(x, 1), round(y, 1)) for x, y in places.tolist()]
