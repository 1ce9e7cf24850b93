"""Images and the ones that a network calls their nearest, before and after: what a run did, to be seen."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from smn_cli.data.preprocessing import Preprocessing
from smn_cli.reports.figures import thumbnail
from smn_cli.seeding import FIXED_SEED, named_draw
from smn_cli.training.image_split import ImageSplit

NUM_RANDOM, NUM_CHANGED, NUM_NEIGHBOURS, SIDE = 6, 4, 5, 96


@dataclass(frozen=True)
class Neighbour:
    """One of an image's nearest.

    Attributes:
        address: of its thumbnail, as data.
        name: of its file.
        similarity: cosine, -1 to 1, as the network finds it.
        is_shared: whether the other network has it among the nearest, too.
    """

    address: str
    name: str
    similarity: float
    is_shared: bool


@dataclass(frozen=True)
class GalleryRow:
    """An image held out, and its nearest among the training images under both networks, the nearest first."""

    address: str
    name: str
    before: list[Neighbour]
    after: list[Neighbour]


@dataclass(frozen=True)
class Gallery:
    """What the page shows of neighbours.

    Attributes:
        drawn: rows of images drawn at random.
        changed: rows of other images whose neighbours changed most.
        mean_new: neighbours that are new in the mean over all images held out, of `num_neighbours`.
        what: those images are, in the plural.
        num_images: of these.
        num_searched: images that neighbours are looked for among.
    """

    drawn: list[GalleryRow]
    changed: list[GalleryRow]
    mean_new: float
    num_neighbours: int
    what: str
    num_images: int
    num_searched: int


def make_gallery(
    split: ImageSplit, preprocessing: Preprocessing, before: tuple[Tensor, Tensor], after: tuple[Tensor, Tensor]
) -> Gallery:
    """Rows drawn by the fixed seed, then those that changed most, which are a choice and said to be.

    Args:
        split: images held out, and those searched.
        preprocessing: of the working size.
        before, after: (H, F) and (N, F) features of the two networks.
    """
    place = {path: index for index, path in enumerate(split.searched)}
    itself = [place.get(path, -1) for path in split.held_out]  # where none were held out, training images judge
    found = [_nearest(*features, itself) for features in (before, after)]
    sets = [[set(row) for row in indices.tolist()] for _, indices in found]
    num_new = [len(new - old) for old, new in zip(*sets, strict=True)]
    order = named_draw(FIXED_SEED, "gallery").sample(range(len(num_new)), len(num_new))
    drawn = order[:NUM_RANDOM]
    changed = sorted(
        (position for position in order[NUM_RANDOM:] if num_new[position]), key=lambda at: (-num_new[at], at)
    )
    names = file_names([*split.held_out, *split.searched])

    def row(position: int) -> GalleryRow:
        strips = []
        for (similarities, indices), others in zip(found, reversed(sets), strict=True):
            pairs = zip(similarities[position].tolist(), indices[position].tolist(), strict=True)
            strips.append(
                [
                    Neighbour(
                        thumbnail(split.searched[index], preprocessing, SIDE),
                        names[len(split.held_out) + index],
                        similarity,
                        index in others[position],
                    )
                    for similarity, index in pairs
                ]
            )
        return GalleryRow(thumbnail(split.held_out[position], preprocessing, SIDE), names[position], *strips)

    return Gallery(
        [row(position) for position in drawn],
        [row(position) for position in changed[:NUM_CHANGED]],
        sum(num_new) / len(num_new),
        found[0][1].shape[1],
        "training images that were looked at" if max(itself) >= 0 else "images held out",
        len(num_new),
        len(split.searched),
    )


def file_names(paths: Sequence[Path]) -> list[str]:
    """Names below the folder that all images have in common, which alone are fit to be shown to others."""
    folder = common_folder(paths)
    return [os.path.relpath(path.absolute(), folder).replace(os.sep, "/") for path in paths]


def common_folder(paths: Sequence[Path]) -> Path:
    """The innermost folder that holds all images."""
    folders = {str(path.absolute().parent) for path in paths}
    try:
        return Path(os.path.commonpath(folders))
    except ValueError:  # on several drives
        return Path()


def _nearest(held_out: Tensor, searched: Tensor, itself: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Cosines (H, K) and positions of the nearest, the image `itself` left out where it is among those searched."""
    similarities = functional.normalize(held_out.float(), dim=1) @ functional.normalize(searched.float(), dim=1).T
    others = len(searched)
    if max(itself) >= 0:
        others -= 1
        rows = [row for row, index in enumerate(itself) if index >= 0]
        similarities[rows, [itself[row] for row in rows]] = -torch.inf
    values, indices = torch.topk(similarities, min(NUM_NEIGHBOURS, others), dim=1)
    return values, indices
