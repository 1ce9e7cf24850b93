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
from smn_cli.data.checking import ImageSet, check_images, check_some_images
from smn_cli.data.loading import image_batches
from smn_cli.data.preprocessing import Preprocessing
from smn_cli.evaluation.features import extract_features, on_device
from smn_cli.training.beginning import network_at_start
from smn_cli.training.distributed import Team
from smn_cli.training.panel import NUM_BANK, Network, UnlabeledJudge
from smn_cli.training.run_folder import RunFolder
from smn_cli.training.swapped import SwappedObjective
from smn_cli.training.teacher import TaughtObjective, Teacher, make_teacher
from smn_cli.training.trainer import Objective

TEACHER_FILE = "teacher.safetensors"
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class ImageSplit:
    """The images of a run: those that train, in the order that positions refer to, and those held out."""

    training: list[Path]
    held_out: list[Path]

    @property
    def bank(self) -> list[Path]:
        """The training images that held-out ones look for neighbours among."""
        return self.training[:NUM_BANK]


WORTH_DRAWING = 1.1
"""Images found for each that a run can use, from which on only a draw of them is looked at."""


def num_wanted(num_found: int, wishes: AdaptOptions) -> int:
    """How many of the images found are to be looked at: all, or what the run can use where that is clearly less."""
    if num_found < wishes.batch_size:
        return num_found
    most = make_plan(wishes, num_found).most_images
    return most if num_found > WORTH_DRAWING * most else num_found


def check_for_run(paths: list[Path], wishes: AdaptOptions, *, progress: Progress | None = None) -> ImageSet:
    """Look at the images that a run over `paths` can use: all of them, or a seeded draw.

    Raises:
        DataError: too many of the images looked at are bad.
    """
    num = num_wanted(len(paths), wishes)
    if num == len(paths):
        return check_images(paths, max_bad=wishes.max_bad, progress=progress)
    return check_some_images(paths, num, seed=wishes.seed, max_bad=wishes.max_bad, progress=progress)


def split_images(paths: list[Path], plan: AdaptPlan) -> ImageSplit:
    """Hold out the plan's number of images, by its seed; with none held out, some training images judge.

    A run that is shorter than one pass only keeps the images it will see.
    """
    order = torch.randperm(len(paths), generator=torch.Generator().manual_seed(plan.seed)).tolist()
    shuffled = [paths[position] for position in order]
    held_out, training = shuffled[: plan.num_holdout], shuffled[plan.num_holdout :]
    training = training[: max(plan.num_steps, 1) * plan.batch_size]
    return ImageSplit(training, held_out or training[-min(500, len(training) // 5 or 1) :])


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
    training = split.training if plan.objective == "taught" else split.bank
    paths = [*split.held_out, *training]
    own = teacher_features(backbone, team.own(paths), larger, num_workers=num_workers, progress=progress)
    return team.joined(own, len(paths))


def save_look(
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
        working_features = extract_features(network, image_batches(split.bank, working, num_workers=num_workers))
        tensors |= make_teacher(
            tensors["training"], working_features, num_prototypes=plan.num_prototypes, seed=plan.seed
        ).tensors()
    folder.save_tensors(TEACHER_FILE, tensors)


def make_objective(folder: RunFolder, backbone: Backbone, plan: AdaptPlan, team: Team | None = None) -> Objective:
    """The plan's objective; call `save_look` first."""
    device = next(backbone.model.parameters()).device
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
    """The health panel of a run that starts with a network; call `save_look` first."""
    known = folder.load_tensors(TEACHER_FILE)
    bank = split.bank
    return UnlabeledJudge(
        split.held_out,
        bank,
        working,
        known["held_out"].float(),
        known["training"][: len(bank)].float(),
        network,
        team,
    )
