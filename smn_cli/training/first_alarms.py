"""What speaks against a run's images before its first step."""

from dataclasses import replace

import torch
from torch import Tensor

from smn_cli.config.teachers import LAST, parse_teacher
from smn_cli.data.images.sizes import usual_short_side
from smn_cli.data.views.loader import image_batches
from smn_cli.evaluation.features import extract_features
from smn_cli.judging.image_alarms import NUM_AT_ONCE, enlargement_alarms, familiarity_alarms, learnability_alarms
from smn_cli.judging.judges import HealthJudge
from smn_cli.objectives.table import objective_of
from smn_cli.training.certify import NUM_CERTIFYING, teacher_alarms
from smn_cli.training.run_context import RunContext

NUM_LEARNABLE = 500
"""Images of which it is asked whether they hold structure; a hundred mostly answer."""


def first_alarms(context: RunContext, health: HealthJudge, *, is_vouched_for: bool = False) -> list[str]:
    """What speaks against the images before the first step; with labels, what there is to learn is known.

    Args:
        context: of the run.
        health: its judge, which has looked at the base.
        is_vouched_for: whether a run like this has been judged, so that its kind of images is in no doubt.
    """
    plan, execution = context.plan, context.execution
    images = health.own_paths[:NUM_LEARNABLE]
    num_images = len(images)
    alarms: list[str] = []
    if not objective_of(plan).needs_labels:
        execution.tell("is there structure to learn from?")
        own = execution.team.own(torch.cat(health.base_features))[:num_images]
        alarms = learnability_alarms(
            context.network_at_start(), context.crops.batches(images, batch_size=NUM_AT_ONCE // 2), own
        )
    if not alarms and context.val is None and plan.num_holdout == 0:
        return [
            f"too few: {num_images} images leave none to judge by; add images, lower `batch_size`, give `val`, "
            "or take the last state unjudged with `keep` last"
        ]
    if not alarms and context.val is None and objective_of(plan).learns_relations:
        return _teaching_alarms(context, health, is_alone=not is_vouched_for and not _has_other_model(context))
    return alarms


def _teaching_alarms(context: RunContext, health: HealthJudge, *, is_alone: bool) -> list[str]:
    """Of a lesson of neighbourhoods; `is_alone` tells whether only the network itself vouches for it.

    Another model's views cannot be counted against the last layer's: by them one was refused on each of six sets that
    taught a gain on some and did harm on none (docs/benchmarks.md, "Teachers").
    """
    plan, training = context.plan, context.split.training
    short_side = usual_short_side(training)  # read from headers, so asked first
    if is_alone and (alarms := enlargement_alarms(short_side, plan.views.global_size)):
        return alarms
    if plan.teachers == (LAST,) and plan.teaches_itself and not plan.witness:
        return [
            "no judge: the last layer itself teaches, and by what it knows nothing is better than the base; give "
            "`witness` or `val`, or take the last state unjudged with `keep` last"
        ]
    if _has_other_teacher(context):
        return []
    context.execution.tell(f"do {' and '.join(plan.teachers)} know more than the last layer?")
    alarms = teacher_alarms(context, training[:NUM_CERTIFYING])
    if alarms or not is_alone:
        return alarms
    backbone = context.backbone
    names = [f"{backbone.classifier_name}.{part}" for part in ("weight", "bias")]
    if not all(name in backbone.classifier for name in names):
        return []
    classifier = (backbone.classifier[name] for name in names)
    return familiarity_alarms(_as_classified(context, health, short_side), *classifier)


def _as_classified(context: RunContext, health: HealthJudge, short_side: float) -> Tensor:
    """(N, F) last layer of the base for training images at the size that its classifier is made for, or a larger one.

    At a smaller one it is sure of whatever it sees: of flowers .37 at 224 px, .81 at 96. Images that would have to be
    enlarged for it stay at the working size.
    """
    size = context.backbone.native_size
    if size <= context.preprocessing.size or enlargement_alarms(short_side, size):
        return health.base_features[1]
    images, preprocessing = context.split.training[:NUM_CERTIFYING], replace(context.preprocessing, size=size)
    batches = image_batches(images, preprocessing, num_workers=context.execution.num_workers)
    return extract_features(context.placed(context.folded.network), batches)


def _has_other_model(context: RunContext) -> bool:
    """Whether another network than the backbone itself vouches for the lesson."""
    return bool(context.plan.witness) or _has_other_teacher(context)


def _has_other_teacher(context: RunContext) -> bool:
    return any(parse_teacher(text).kind == "model" for text in context.plan.teachers)
