"""Training images with labels: one folder a class, as their names and numbers say."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from smn_cli.config.options import AdaptOptions
from smn_cli.data.images.find import find_class_folders
from smn_cli.data.labels.label_subsets import draw_fraction
from smn_cli.errors import DataError, UsageError

MAX_NAME = 512
"""Characters of a class's name that an adapter file can hold."""


@dataclass(frozen=True)
class LabeledImages:
    """Images of known classes.

    Attributes:
        classes: names, sorted; labels index them.
        label_of: label, 0 .. len(classes) - 1, by path.
    """

    classes: tuple[str, ...]
    label_of: dict[Path, int]

    @property
    def paths(self) -> list[Path]:
        """All images, sorted."""
        return sorted(self.label_of)

    def labels(self, paths: Sequence[Path]) -> Tensor:
        """(N,) int64 labels of some of the images."""
        return torch.tensor([self.label_of[path] for path in paths], dtype=torch.int64)


def find_labeled_images(inputs: Sequence[str | Path], options: AdaptOptions) -> LabeledImages | None:
    """Images below class folders, or below those of `train/` where there is one: a test split never trains.

    Args:
        inputs: one folder.
        options: whether there are labels, and which fraction of the images is used, see `draw_fraction`.

    Returns:
        None if no labels are asked for.

    Raises:
        UsageError: more than one input.
        DataError: no class folders, a single class, or a name that no adapter can hold.
    """
    if options.labels is None:
        return None
    if len(inputs) != 1:
        raise UsageError(f"`labels` folders takes one folder of class folders, found {len(inputs)} inputs")
    folder = Path(inputs[0]).absolute()  # as a run folder lists its images
    found = find_class_folders(folder / "train" if (folder / "train").is_dir() else folder)
    classes = tuple(sorted(found))
    if len(classes) < 2:
        raise DataError(f"{folder} has only the class {classes[0]}: `labels` folders needs two class folders or more")
    for name in classes:
        if len(name) > MAX_NAME or not name.isprintable():
            raise DataError(f"{folder}: the class folder {name[:40]!a} has a name that no adapter can hold: rename it")
    label_of = {path: label for label, name in enumerate(classes) for path in found[name]}
    if options.label_fraction is not None:
        paths = sorted(label_of)
        chosen = draw_fraction([label_of[path] for path in paths], options.label_fraction, options.seed)
        label_of = {paths[position]: label_of[paths[position]] for position in chosen}
    return LabeledImages(classes, label_of)


def spread_over_classes(labels: Tensor, generator: torch.Generator) -> list[int]:
    """A random order in which every beginning holds the classes in the same shares, as far as whole images can.

    The last image of each class comes at the end, so that a beginning never takes the whole of a class while another
    one has images left.

    Args:
        labels: (N,) int64.
        generator: of the draw.
    """
    order = torch.randperm(len(labels), generator=generator).tolist()
    sizes = torch.bincount(labels).tolist()
    num_taken = [0] * len(sizes)
    places: list[tuple[float, int, int]] = []
    for rank, position in enumerate(order):
        label = int(labels[position])
        num_taken[label] += 1
        is_last = num_taken[label] == sizes[label]
        places.append((1.0 if is_last else num_taken[label] / (sizes[label] + 1), rank, position))
    return [position for _, _, position in sorted(places)]
