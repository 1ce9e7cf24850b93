"""Which images a run looks at, which of them train, which are held out."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from smn_cli.config.options import AdaptOptions
from smn_cli.config.plan import AdaptPlan
from smn_cli.data.images.validate import ImageSet, check_images, check_some_images
from smn_cli.data.labels.labeled_images import LabeledImages, spread_over_classes
from smn_cli.errors import DataError, UsageError
from smn_cli.judging.judges import NUM_SEARCHED
from smn_cli.seeding import named_draw, split_generator
from smn_cli.training.planning import make_plan

WORTH_DRAWING = 1.1
"""Images found for each that a run can use, from which on only a draw of them is looked at."""


@dataclass(frozen=True)
class ImageSplit:
    """The images of a run: those that train, in the order that positions refer to, and those held out.

    `labeled` knows the classes of all of them, in a run with labels.
    """

    training: list[Path]
    held_out: list[Path]
    labeled: LabeledImages | None = None

    @property
    def searched(self) -> list[Path]:
        """The training images that held-out ones look for neighbours among."""
        return self.training[:NUM_SEARCHED]


def num_wanted(num_found: int, options: AdaptOptions) -> int:
    """How many of the images found are to be looked at: all, or what the run can use where that is clearly less.

    Raises:
        UsageError: an option has no effect at any size.
    """
    most, refused = 0, None
    for native_size in (1, 10**6):  # whether a size is the backbone's own is not known yet, and decides the batch
        try:
            most = max(most, make_plan(options, num_found, native_size=native_size).max_images)
        except DataError:  # fewer than a batch: all are looked at, so that the error comes with every bad one named
            return num_found
        except UsageError as error:  # an option that has no effect at one of them
            refused = error
    if refused is not None and most == 0:
        raise refused
    return most if num_found > WORTH_DRAWING * most else num_found


def check_for_run(
    paths: list[Path], options: AdaptOptions, *, progress: Callable[[int, int], None] | None = None
) -> ImageSet:
    """Look at the images that a run over `paths` can use: all of them, or a seeded draw.

    Raises:
        DataError: too many of the images looked at are bad.
        UsageError: as in `num_wanted`.
    """
    num = num_wanted(len(paths), options)
    if num == len(paths):
        return check_images(paths, max_bad=options.max_bad, progress=progress)
    return check_some_images(paths, num, seed=options.seed, max_bad=options.max_bad, progress=progress)


def drawn_for(plan: AdaptPlan, images: ImageSet) -> ImageSet:
    """Of good images those that a run trains on and is judged by, where its plan draws fewer than were looked at.

    So its folder and its adapter name no others. Images were looked at before it was known who teaches.
    """
    if not plan.training_images or len(images.good) <= plan.max_images:
        return images
    drawn = named_draw(plan.seed, "training images").sample(range(len(images.good)), plan.max_images)
    good = [images.good[position] for position in sorted(drawn)]
    return ImageSet(good, images.bad, images.num_unseen + len(images.good) - len(good))


def split_images(paths: list[Path], plan: AdaptPlan, labeled: LabeledImages | None = None) -> ImageSplit:
    """Hold out the plan's number of images, by its seed; with none held out, some training images judge.

    A run keeps no more images than it is to see, see `AdaptPlan.max_images`. With labels, those held out and those kept
    are of all classes.
    """
    generator = split_generator(plan.seed)
    if labeled is None:
        order = torch.randperm(len(paths), generator=generator).tolist()
    else:
        order = spread_over_classes(labeled.labels(paths), generator)
    shuffled = [paths[position] for position in order]
    held_out, training = shuffled[: plan.num_holdout], shuffled[plan.num_holdout :]
    training = training[: plan.max_training]
    return ImageSplit(training, held_out or training[-min(500, len(training) // 5 or 1) :], labeled)
