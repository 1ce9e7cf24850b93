"""Before the first step: which images train, what the frozen network says of them, who judges the run."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from smn_cli.backbones.loading import Backbone
from smn_cli.config.options import AdaptOptions
from smn_cli.config.plan import AdaptPlan
from smn_cli.config.planning import make_plan
from smn_cli.data.images.validate import ImageSet, check_images, check_some_images
from smn_cli.data.labels.eval_split import LabeledSplit
from smn_cli.data.labels.labeled_images import LabeledImages, spread_over_classes
from smn_cli.data.preprocessing import Preprocessing
from smn_cli.data.views.loader import image_batches
from smn_cli.distributed import Team
from smn_cli.evaluation.features import Network, extract_features, on_device
from smn_cli.judging.classifier_judge import ClassifierJudge, labels_in_order, rounded
from smn_cli.judging.judges import NUM_SEARCHED, UnlabeledJudge
from smn_cli.objectives.supervised import SupervisedObjective
from smn_cli.objectives.swapped import SwappedObjective
from smn_cli.objectives.teacher import TaughtObjective, Teacher, make_teacher
from smn_cli.runs.run_folder import RunFolder
from smn_cli.runs.run_labels import read_base_head, read_start, save_base_head, save_labels
from smn_cli.seeding import split_generator
from smn_cli.training.start_state import network_at_start
from smn_cli.training.trainer import Objective

TEACHER_FILE = "teacher.safetensors"
Progress = Callable[[int, int], None]


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


WORTH_DRAWING = 1.1
"""Images found for each that a run can use, from which on only a draw of them is looked at."""


def num_wanted(num_found: int, options: AdaptOptions) -> int:
    """How many of the images found are to be looked at: all, or what the run can use where that is clearly less."""
    if num_found < options.batch_size:
        return num_found
    most = make_plan(options, num_found).max_images
    return most if num_found > WORTH_DRAWING * most else num_found


def check_for_run(paths: list[Path], options: AdaptOptions, *, progress: Progress | None = None) -> ImageSet:
    """Look at the images that a run over `paths` can use: all of them, or a seeded draw.

    Raises:
        DataError: too many of the images looked at are bad.
    """
    num = num_wanted(len(paths), options)
    if num == len(paths):
        return check_images(paths, max_bad=options.max_bad, progress=progress)
    return check_some_images(paths, num, seed=options.seed, max_bad=options.max_bad, progress=progress)


def split_images(paths: list[Path], plan: AdaptPlan, labeled: LabeledImages | None = None) -> ImageSplit:
    """Hold out the plan's number of images, by its seed; with none held out, some training images judge.

    A run that is shorter than one pass only keeps the images it will see. With labels, those held out and those kept
    are of all classes.
    """
    generator = split_generator(plan.seed)
    if labeled is None:
        order = torch.randperm(len(paths), generator=generator).tolist()
    else:
        order = spread_over_classes(labeled.labels(paths), generator)
    shuffled = [paths[position] for position in order]
    held_out, training = shuffled[: plan.num_holdout], shuffled[plan.num_holdout :]
    training = training[: max(plan.num_steps, 1) * plan.batch_size]
    return ImageSplit(training, held_out or training[-min(500, len(training) // 5 or 1) :], labeled)


def teacher_features(
    backbone: Backbone, images: list[Path], preprocessing: Preprocessing, *, num_workers: int, progress: Progress | None
) -> Tensor:
    """(N, F) mean of the unit-length features of each image and its mirror image, in half precision."""
    device = next(backbone.model.parameters()).device
    network = on_device(backbone.model, device)

    def both(batch: Tensor) -> Tensor:
        direct, mirrored = network(batch), network(batch.flip(-1))
        return functional.normalize(direct.float(), dim=1) + functional.normalize(mirrored.float(), dim=1)

    batches = image_batches(images, preprocessing, batch_size=64, num_workers=num_workers)
    tick = None if progress is None else lambda done: progress(done, len(images))
    return extract_features(both, batches, progress=tick).half()


def embed_for_teacher(
    backbone: Backbone,
    plan: AdaptPlan,
    split: ImageSplit,
    working: Preprocessing,
    *,
    num_workers: int,
    team: Team,
    progress: Progress | None = None,
) -> Tensor:
    """(N, F) features of the images that a run judges by and, if taught, trains on; each process does a share."""
    larger = Preprocessing(plan.teacher_size, working.mean, working.std, working.interpolation)
    training = split.training if plan.objective == "taught" else split.searched
    paths = [*split.held_out, *training]
    own = teacher_features(backbone, team.own(paths), larger, num_workers=num_workers, progress=progress)
    return team.joined(own, len(paths))


def save_teacher_embedding(
    folder: RunFolder,
    backbone: Backbone,
    plan: AdaptPlan,
    split: ImageSplit,
    working: Preprocessing,
    embedded: Tensor,
    *,
    num_workers: int,
) -> None:
    """Keep in the run folder what the frozen network made of the images, see `embed_for_teacher`, and what follows.

    The mean that centres the masked network's features is that of the network that the run starts from.
    """
    tensors = {
        "held_out": embedded[: len(split.held_out)].contiguous(),
        "training": embedded[len(split.held_out) :].contiguous(),
    }
    if plan.objective == "taught":
        network = network_at_start(folder, backbone)
        working_features = extract_features(network, image_batches(split.searched, working, num_workers=num_workers))
        tensors |= make_teacher(
            tensors["training"], working_features, num_prototypes=plan.num_prototypes, seed=plan.seed
        ).tensors()
    folder.save_tensors(TEACHER_FILE, tensors)
    if split.labeled is not None:
        save_labels(folder, split.labeled)
        held_out = split.held_out if plan.num_holdout else []
        save_base_head(folder, backbone, split.labeled, split.training, held_out, working, num_workers=num_workers)


def make_objective(
    folder: RunFolder, backbone: Backbone, plan: AdaptPlan, split: ImageSplit, team: Team | None = None
) -> Objective:
    """The plan's objective; call `save_teacher_embedding` first."""
    device = next(backbone.model.parameters()).device
    if split.labeled is not None:
        start, scale = read_start(folder)
        labels = split.labeled.labels(split.training)
        return SupervisedObjective(labels, start, scale=scale, plan=plan, device=device)
    if plan.objective == "swapped":
        return SwappedObjective(backbone.num_features, plan, device, team)
    known = folder.load_tensors(TEACHER_FILE)
    return TaughtObjective(
        Teacher.of(known["training"], known["prototypes"], known["working_mean"]),
        temperature=plan.temperature,
        epsilon=plan.epsilon,
        iterations=plan.sinkhorn_iterations,
        device=device,
    )


def make_unlabeled_judge(
    folder: RunFolder, network: Network, split: ImageSplit, working: Preprocessing, team: Team | None = None
) -> UnlabeledJudge:
    """The health panel of a run that starts with a network; call `save_teacher_embedding` first."""
    known = folder.load_tensors(TEACHER_FILE)
    searched = split.searched
    return UnlabeledJudge(
        split.held_out,
        searched,
        working,
        known["held_out"].float(),
        known["training"][: len(searched)].float(),
        network,
        team,
    )


def make_classifier_judge(
    folder: RunFolder,
    backbone: Backbone,
    split: ImageSplit,
    working: Preprocessing,
    val: LabeledSplit | None,
    team: Team | None = None,
) -> ClassifierJudge | None:
    """Who counts right answers on the held-out images or, if given, on those of `val`; None in a run without labels.

    Raises:
        DataError: `val` has a class that the training images do not have.
    """
    if split.labeled is None:
        return None
    classes = split.labeled.classes
    images, labels = split.held_out, split.labeled.labels(split.held_out)
    if val is not None:
        images, labels = val.test_paths, labels_in_order(val, classes)
    base_head = rounded(read_base_head(folder), name=backbone.classifier_name, classes=classes)
    network = on_device(backbone.model, next(backbone.model.parameters()).device)
    return ClassifierJudge(images, labels, working, network, base_head, team)
