"""Before the first step: what the teacher says of the images, what the objective makes of that, who judges the run."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor
from torch.nn import functional

from smn_cli.adapters.head import rounded_head
from smn_cli.backbones.loading import Backbone
from smn_cli.data.preprocessing import Preprocessing
from smn_cli.data.views.loader import image_batches
from smn_cli.distributed import launch_names
from smn_cli.errors import CheckpointError
from smn_cli.evaluation.features import extract_features, on_device
from smn_cli.features.row_store import MANY
from smn_cli.judging.classifier_judge import ClassifierJudge, labels_in_order
from smn_cli.judging.judges import HealthJudge, Judge, LabeledJudge
from smn_cli.judging.looks import Activations
from smn_cli.objectives.base import Objective, ObjectiveInputs
from smn_cli.objectives.table import objective_of
from smn_cli.runs.run_config import describe_run
from smn_cli.runs.run_folder import OBJECTIVE_FILE, TEACHER_FILE
from smn_cli.runs.run_labels import save_labels
from smn_cli.runs.run_result import read_prepared
from smn_cli.training.run_context import RunContext, RunRequest
from smn_cli.training.start_state import StartingPoint
from smn_cli.training.teachers import TaughtSpace, teacher_space, witness_features


@dataclass(frozen=True)
class Prepared:
    """What is found once, before the first step of a run.

    Attributes:
        teacher_held_out: (H, F) float16 features of the teacher for the held-out images.
        teacher_training: (N, F) the same for the training images, or (M, F) for those alone that judge.
        objective: what the objective keeps, see `Objective.prepare`.
        witness: (H + M, F) float16 features of the plan's witness, of the held-out images and those that judge.
        trunk: what the frozen first blocks gave for these, if a teacher had them look; kept by nobody on disk.
    """

    teacher_held_out: Tensor
    teacher_training: Tensor
    objective: dict[str, Tensor]
    witness: Tensor | None = None
    trunk: Activations | None = None

    @classmethod
    def read(cls, context: RunContext) -> "Prepared":
        """Of a run that was started before, or by another process.

        Raises:
            CheckpointError: it is missing or damaged.
        """
        teacher = context.folder.load_tensors(TEACHER_FILE)
        return cls(teacher["held_out"], teacher["training"], read_prepared(context.folder), teacher.get("witness"))


def prepare_run(context: RunContext, request: RunRequest, start: StartingPoint | None) -> Prepared:
    """Describe a new run in its folder, and find what is found once; the first process of a team writes.

    Args:
        context: of the run, whose folder is in the making.
        request: what it was asked for.
        start: where it starts, if that is not the recipe's own scores.
    """
    team, folder = context.execution.team, context.folder
    if start is not None:  # first, since whoever looks at images asks what all networks of the run share
        origin = start.origin(context.plan)
        if team.is_first and origin is not None:
            origin.save(folder)
        team.wait()
    embedded, teachers, base_features, trunk = _embed_for_teacher(context)
    witness = witness_features(context)
    launches = launch_names(team)
    if team.is_first:
        folder.write_images(request.images.good, request.images.bad_lines())
        config = describe_run(
            context.backbone,
            context.plan,
            request.images,
            context.preprocessing,
            weights=request.weights,
            device=context.execution.device,
            val=request.val,
            labeled=request.labeled,
            teachers=teachers,
            launch=launches,
        )
        folder.write_config(config)
    num_held_out = len(context.split.held_out)
    held_out, training = embedded[:num_held_out].contiguous(), embedded[num_held_out:].contiguous()
    prepared = None
    if team.is_first:
        objective = objective_of(context.plan).prepare(_objective_inputs(context, training, base_features))
        prepared = Prepared(held_out, training, objective, witness, trunk)
        seen = {"held_out": held_out, "training": training}
        folder.save_tensors(TEACHER_FILE, seen if witness is None else {**seen, "witness": witness})
        folder.save_tensors(OBJECTIVE_FILE, objective)
        if context.split.labeled is not None:
            save_labels(folder, context.split.labeled)
    team.wait()
    if prepared is None or len(training) > MANY:  # what lies on disk need not lie in memory
        return replace(Prepared.read(context), trunk=trunk)
    return prepared


def make_objective(context: RunContext, prepared: Prepared) -> Objective:
    """The plan's objective."""
    inputs = _objective_inputs(context, prepared.teacher_training)
    try:
        return objective_of(context.plan).build(inputs, prepared.objective)
    except KeyError as error:
        raise CheckpointError(f"{context.folder.path} lacks {error} of its objective: start the run again") from None


def make_health_judge(context: RunContext, prepared: Prepared) -> HealthJudge:
    """Who needs no labels."""
    searched = context.split.searched
    return HealthJudge(
        context.split.held_out,
        searched,
        context.crops,
        prepared.teacher_held_out.float(),
        prepared.teacher_training[: len(searched)].float(),
        context.candidate_at_start(),
        context.execution.team,
        trunk=context.trunk,
        known=prepared.trunk,
        is_own_space=not objective_of(context.plan).learns_relations,
        witness=prepared.witness,
        teaches_itself=context.plan.teaches_itself,
    )


def what_counts(judge: Judge, health: HealthJudge) -> str:
    """What a judge counts, and in which unit."""
    if judge.uses_labels:
        return "accuracy, as a share of 1"
    return "neighbours that two views share, as a share of 1" if health.counts_views else "neighbour likeness, a cosine"


def choose_judge(context: RunContext, prepared: Prepared, health: HealthJudge) -> Judge:
    """Who decides what a run keeps: right answers of a classifier, or of nearest neighbours, or else the health.

    Raises:
        DataError: the labeled images have a class that the training images do not have.
    """
    split, val, team = context.split, context.val, context.execution.team
    crops = context.crops
    if val is not None:
        crops = context.crops_of(team.own([*([] if split.labeled else val.train_paths), *val.test_paths]))
    base_classifier = objective_of(context.plan).base_classifier(prepared.objective)
    if split.labeled is not None and base_classifier is not None:
        classes = split.labeled.classes
        images, labels = split.held_out, split.labeled.labels(split.held_out)
        if val is not None:
            images, labels = val.test_paths, labels_in_order(val, classes)
        base_head = rounded_head(base_classifier, name=context.backbone.classifier_name, classes=classes)
        base = context.candidate({})
        return ClassifierJudge(health, images, labels, crops, base, base_head, team, trunk=context.trunk)
    if val is not None:
        return LabeledJudge(health, val, crops, context.candidate_at_start(), team, trunk=context.trunk)
    return health


def teacher_features(
    backbone: Backbone,
    images: list[Path],
    preprocessing: Preprocessing,
    *,
    num_workers: int,
    progress: Callable[[int, int], None] | None,
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


def _embed_for_teacher(context: RunContext) -> TaughtSpace:
    """(H + N, F) of the images that a run judges by and those its teacher is for; each process does a share."""
    if objective_of(context.plan).learns_relations:
        return teacher_space(context)
    working, split, execution = context.preprocessing, context.split, context.execution
    larger = Preprocessing(context.plan.teacher_size, working.mean, working.std, working.interpolation)
    training = split.training if objective_of(context.plan).needs_teacher else split.searched
    paths, team = [*split.held_out, *training], execution.team
    own = teacher_features(
        context.backbone,
        team.own(paths),
        larger,
        num_workers=execution.num_workers,
        progress=execution.on_teacher_embedding if team.is_first else None,
    )
    return TaughtSpace(team.joined(own, len(paths)), [], None)


def _objective_inputs(context: RunContext, teacher_training: Tensor, known: Tensor | None = None) -> ObjectiveInputs:
    split, plan = context.split, context.plan
    held_out = split.held_out if plan.num_holdout else []  # else they are among those that train

    def base_features(num_images: int) -> tuple[Tensor, Tensor]:
        own = split.training[:num_images]
        features = context.features(context.base(), [*own, *held_out])
        return features[: len(own)], features[len(own) :]

    def at_start(num_images: int) -> Tensor:
        if known is not None and context.starts_at_base:
            return known[:num_images]
        return context.features(context.network_at_start(), split.training[:num_images])

    return ObjectiveInputs(
        plan=plan,
        num_features=context.backbone.num_features,
        device=context.device,
        team=context.execution.team,
        labels=None if split.labeled is None else split.labeled.labels(split.training),
        held_out_labels=None if split.labeled is None else split.labeled.labels(held_out),
        teacher_features=teacher_training,
        features_at_start=at_start,
        base_features=base_features,
    )
