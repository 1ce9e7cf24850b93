"""A few real steps of a run, in a temporary folder that vanishes, to measure what the whole run would take."""

import statistics
import time
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from smn_cli.backbones.loading import Backbone, check_sizes
from smn_cli.config.options import AdaptOptions
from smn_cli.config.plan import AdaptPlan
from smn_cli.data.images.validate import ImageSet
from smn_cli.data.labels.labeled_images import LabeledImages
from smn_cli.data.views.crops import ViewCutter
from smn_cli.errors import BackboneError, DataError
from smn_cli.judging.looks import Candidate
from smn_cli.objectives.table import objective_of
from smn_cli.recipes import recipe_of
from smn_cli.seeding import named_draw
from smn_cli.training.resolve_plan import resolve_plan
from smn_cli.training.run_context import Execution, RunRequest
from smn_cli.training.session import Session

SAMPLE_IMAGES = 200
SAMPLE_BATCHES = 5
NUM_STEPS = 7
NUM_WEIGHED = 16
SMALLER_PX = 96
MAX_BATCH = 64
"""Largest that a run has unless another is asked for."""
MAX_SECONDS = 60.0
"""After this time a slow network has taken enough steps, if there are three."""

Tick = tuple[int, float]
"""How many were done, and when."""


@dataclass(frozen=True)
class Profile:
    """What was measured, in seconds and bytes.

    Attributes:
        plan: of the whole run.
        num_weights, num_tensors: what is trained.
        num_statistics: values of the normalisation statistics.
        num_features: width of the features.
        step_s: of the steps that count, those after the first ones, which wait for loaders and caches.
        teacher_embedding_s: to embed an image for the teacher.
        judge_s: an image, for an evaluation; `num_judge_views` of them make one evaluation of the profile.
        look_s: the same where the whole network runs, and not only what lies behind the trunk.
        preparation_s: estimate for what the objective computes once, such as k-means.
        state_bytes: a checkpoint.
        pixel_bytes: of an image's decoded pixels, which loaders keep where it comes again.
        device_bytes: peak memory of the accelerator, None on a CPU.
        trunk_s: for the frozen first blocks to look at one draw of an image's views; 0 where none is kept.
        has_trunk: whether all networks of the run share their first blocks, so that these look at an image once.
        alarms: what speaks against the sample, as it would stop a run before its first step.
    """

    plan: AdaptPlan
    num_weights: int
    num_tensors: int
    num_statistics: int
    num_features: int
    step_s: list[float]
    teacher_embedding_s: float
    judge_s: float
    look_s: float
    preparation_s: float
    state_bytes: int
    pixel_bytes: float
    device_bytes: int | None
    trunk_s: float
    has_trunk: bool
    alarms: list[str]

    @property
    def median_step_s(self) -> float:
        """Seconds a step."""
        return statistics.median(self.step_s)


def draw_sample(paths: list[Path], options: AdaptOptions) -> list[Path]:
    """A seeded draw that is large enough for a profile, in the order of `paths`."""
    num = min(len(paths), max(SAMPLE_IMAGES, SAMPLE_BATCHES * (options.batch_size or MAX_BATCH)))
    positions = named_draw(options.seed, "rehearsal").sample(range(len(paths)), num)
    return [paths[position] for position in sorted(positions)]


def profile_run(
    backbone: Backbone,
    images: ImageSet,
    options: AdaptOptions,
    execution: Execution,
    labeled: LabeledImages | None = None,
) -> Profile:
    """Take a few steps of the run that `options` make of all the images.

    Args:
        backbone: as loaded; put on the device, and left as the base.
        images: a checked sample; those not looked at count as usable.
        options: settings asked for.
        execution: device and workers of the run.
        labeled: classes of the images, for a run with labels.

    Raises:
        DataError, BackboneError, UsageError: as the run would.
    """
    plan = resolve_plan(
        options, images.num_usable, backbone, execution.device, labeled, paths=images.good, tell=execution.tell
    )
    if len(images.good) < plan.batch_size:
        raise DataError(
            f"{len(images.good)} of {len(images.good) + len(images.bad)} images looked at are usable, fewer than one "
            f"batch of {plan.batch_size}: mend them, or lower `batch_size`"
        )
    ticks: list[Tick] = []
    trunk_ticks: list[Tick] = []
    watched = _watched(execution, ticks, trunk_ticks)
    is_cuda = execution.device.startswith("cuda")
    if is_cuda:
        torch.cuda.reset_peak_memory_stats(execution.device)
    with TemporaryDirectory(prefix="smn-plan-") as folder:
        ticks.append((0, time.monotonic()))
        request = RunRequest(Path(folder, "run"), images, options, labeled=labeled, plan=_short(plan, len(images.good)))
        session = Session.start(request, backbone, execution=watched)
        try:
            alarms = session.first_alarms() if plan.keep == "best" else []
            step_s = _take_steps(session)
            trained = list(session.trainer.source.trained.values())
            return Profile(
                plan=plan,
                num_weights=sum(int(tensor.isfinite().sum()) for tensor in trained),  # infinite scores never move
                num_tensors=len(trained),
                num_statistics=sum(tensor.numel() for tensor in session.trainer.norm_stats().values()),
                num_features=backbone.num_features,
                step_s=step_s,
                teacher_embedding_s=_an_image(ticks),
                judge_s=_time_judge(session, session.candidate()),
                look_s=_time_judge(session, Candidate(session.candidate().network)),
                preparation_s=objective_of(plan).preparation_s(plan, backbone.num_features, images.num_usable),
                state_bytes=_bytes_in(session.trainer.state()) + sum(tensor.numel() for tensor in trained),
                trunk_s=_an_image(trunk_ticks) / plan.batch_size if len(trunk_ticks) > 1 else 0.0,
                pixel_bytes=_pixel_bytes(session),
                has_trunk=session.context.cut is not None,
                device_bytes=torch.cuda.max_memory_allocated(execution.device) if is_cuda else None,
                alarms=alarms,
            )
        finally:
            session.close()


def _watched(execution: Execution, ticks: list[Tick], trunk_ticks: list[Tick]) -> Execution:
    """Device and workers of an execution, and when teachers and trunk had done how many images and batches."""
    return Execution(
        execution.device,
        execution.num_workers,
        float("inf"),
        on_teacher_embedding=lambda done, _: ticks.append((done, time.monotonic())),
        on_trunk=lambda done, _: trunk_ticks.append((done, time.monotonic())),
    )


def profile_smaller(
    plan: AdaptPlan,
    backbone: Backbone,
    images: ImageSet,
    options: AdaptOptions,
    execution: Execution,
    labeled: LabeledImages | None = None,
) -> Profile | None:
    """The same run on images of 96 px, to compare a plan with.

    None where a size was asked for or the recipe has one, where the network cannot take images so small, and where the
    run cannot be had at that size, of fewer images than its batch.
    """
    has_size = options.size is not None or recipe_of(options.recipe, options.labels).working_size is not None
    if has_size or plan.views.global_size <= SMALLER_PX:
        return None
    try:
        check_sizes(backbone, [SMALLER_PX])
        return profile_run(backbone, images, replace(options, size=SMALLER_PX), execution, labeled)
    except (BackboneError, DataError):
        return None


def _short(plan: AdaptPlan, num_images: int) -> AdaptPlan:
    """The plan of the whole run, cut to a sample: every step costs what it will, none is an evaluation.

    Of what the first blocks give, one draw is enough to tell what all of them take.
    """
    num_holdout = min(plan.num_holdout, num_images // 10, num_images - plan.batch_size)
    num_training = num_images - num_holdout
    never = 10**9
    return replace(
        plan,
        keep="last",
        num_steps=never,
        eval_every=never,
        num_holdout=num_holdout,
        steps_per_epoch=max(1, num_training // plan.batch_size),
        head_steps=0,
        num_prototypes=min(plan.num_prototypes, num_training),
        queue_length=min(plan.queue_length, num_training // plan.batch_size * plan.batch_size),
        queue_start_step=0,
        cached_views=min(plan.cached_views, 1),
    )


def _take_steps(session: Session) -> list[float]:
    """Seconds of single steps. What loaders had ready before the first step says nothing of how fast they are."""
    num_first = 1 + 2 * session.execution.num_workers
    taken: list[float] = []
    started = last = time.monotonic()
    for _report in session.steps():
        now = time.monotonic()
        taken.append(now - last)
        last = now
        if len(taken) == num_first + NUM_STEPS or (len(taken) >= 3 and now - started > MAX_SECONDS):
            break
    return taken[num_first:] or taken[1:]


def _an_image(ticks: list[Tick]) -> float:
    """Seconds an image, without the first batch if there are others."""
    (first_done, first_time), (last_done, last_time) = ticks[min(1, len(ticks) - 2)], ticks[-1]
    return (last_time - first_time) / (last_done - first_done)


def _pixel_bytes(session: Session) -> float:
    """Of a few images, in the mean."""
    few = session.split.training[:NUM_WEIGHED]
    cutter = ViewCutter(few, session.plan.views)
    return statistics.mean(cutter.pixels(position).nbytes for position in range(len(few)))


def _time_judge(session: Session, candidate: Candidate) -> float:
    """Seconds an image that an evaluation embeds."""
    num_views = num_judge_views(session.plan, len(session.split.held_out), len(session.split.searched))
    started = time.monotonic()
    session.health.judge(candidate)
    return (time.monotonic() - started) / num_views


def num_judge_views(plan: AdaptPlan, num_held_out: int, num_searched: int) -> int:
    """Images that an evaluation embeds: held-out ones as they are and mirrored, of relations a second view, too."""
    return (3 if objective_of(plan).learns_relations else 2) * num_held_out + num_searched


def _bytes_in(value: Any) -> int:
    """Bytes of all tensors in nested dictionaries and lists."""
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, dict):
        value = list(value.values())
    return sum(map(_bytes_in, value)) if isinstance(value, list | tuple) else 0
