"""What a whole run would cost, from what a profile measured: seconds, memory, bytes."""

import math
import sys
from dataclasses import dataclass

from smn_cli.config.plan import AdaptPlan
from smn_cli.config.teachers import parse_teacher
from smn_cli.data.views.memory import free_memory
from smn_cli.data.views.pixel_cache import SHARE
from smn_cli.judging.image_alarms import NUM_AT_ONCE
from smn_cli.judging.judges import NUM_SEARCHED
from smn_cli.objectives.table import objective_of
from smn_cli.training.certify import NUM_AT_ONCE as NUM_CERTIFYING
from smn_cli.training.profiling import Profile, num_judge_views

MASK_BITS = (0.24, 0.34)
"""Bits a masked weight of the default recipe at its usual densities, .94 to .91, see docs/benchmarks.md."""
HEADER_BYTES = 4800
_NUM_ALARM_VIEWS = 2 * NUM_AT_ONCE


@dataclass(frozen=True)
class Estimate:
    """Of a whole run.

    Attributes:
        num_used: images that train or are held out.
        seconds: by part; they add up to `total_s`.
        process_bytes: peak of this process while it was profiled, and what the images left out of that would add; None
            where the system does not tell.
        run_folder_bytes: most that the run folder takes, while a checkpoint replaces the last one.
        adapter_bytes: smallest and largest that is likely of a default run of full length; None for full fine-tuning,
            which has no adapter.
    """

    num_used: int
    seconds: dict[str, float]
    process_bytes: int | None
    run_folder_bytes: int
    adapter_bytes: tuple[int, int] | None

    @property
    def total_s(self) -> float:
        """Seconds of the whole run, without the start of Python and the loading of the weights."""
        return sum(self.seconds.values())


def estimate_run(profile: Profile, *, num_usable: int, num_sample: int, check_s: float, path_bytes: int) -> Estimate:
    """Scale what was measured to the whole run.

    Args:
        profile: of the run.
        num_usable: images that may be usable.
        num_sample: images of the profile.
        check_s: seconds of the look at the images before the run.
        path_bytes: mean length of a path.
    """
    plan = profile.plan
    num_used = min(num_usable, plan.max_images)
    num_training = num_used - plan.num_holdout
    num_searched = min(NUM_SEARCHED, num_training)
    num_held_out = plan.num_holdout or min(500, num_training // 5 or 1)
    num_embedded = plan.num_holdout + (num_training if objective_of(plan).needs_teacher else num_searched)
    num_evaluations = -(-plan.num_steps // plan.eval_every)
    judged = num_judge_views(plan, num_held_out, num_searched)
    whole = _num_whole(profile, judged, num_held_out, num_searched, num_training)
    extra = num_embedded - min(num_embedded, num_sample)
    more = extra * _bytes_of_an_image(profile) + plan.cached_bytes + _kept_pixels(profile, num_training, num_sample)
    peak = _peak_process_bytes()
    return Estimate(
        num_used=num_used,
        seconds={
            "checking": check_s,
            "looking": profile.teacher_embedding_s * num_embedded * max(1, len(plan.teachers)),
            "prototypes": profile.preparation_s,
            "trunk": profile.trunk_s * plan.cached_views * num_training,
            "steps": profile.median_step_s * plan.num_steps,
            "evaluations": profile.judge_s * judged * num_evaluations + profile.look_s * whole,
        },
        process_bytes=None if peak is None else peak + more,
        run_folder_bytes=2 * profile.state_bytes + num_embedded * 2 * profile.num_features + num_used * path_bytes,
        adapter_bytes=_adapter_bytes(plan, profile),
    )


def _num_whole(profile: Profile, judged: int, num_held_out: int, num_searched: int, num_training: int) -> int:
    """Images that the whole base looks at before the first step, beside its teachers; later its trunk's word is kept.

    Args:
        profile: of the run.
        judged: images that an evaluation embeds, of which held-out ones and those searched are seen as they are.
        num_held_out, num_searched: of these.
        num_training: images that train.
    """
    plan, objective = profile.plan, objective_of(profile.plan)
    kinds = {parse_teacher(text).kind for text in plan.teachers}
    whole = judged
    if plan.teacher_size == plan.views.global_size and kinds - {"model"}:  # such a teacher's pass tells its features
        whole -= num_held_out + num_searched if profile.has_trunk else 0  # and what its first blocks give
    else:  # the objective asks for its features, too
        whole += num_training if objective.learns_relations else num_searched
    if plan.keep == "best" and not objective.needs_labels:
        whole += _NUM_ALARM_VIEWS
        if objective.learns_relations and kinds & {"stages"} and "model" not in kinds:
            whole += 2 * min(NUM_CERTIFYING, num_training)  # two views of each image that certifies
    return whole


def _kept_pixels(profile: Profile, num_training: int, num_sample: int) -> int:
    """Bytes of the decoded images beyond the sample's that a run keeps, as far as it may."""
    plan = profile.plan
    if plan.num_steps * plan.batch_size <= num_training:  # none comes again
        return 0
    wanted = int(profile.pixel_bytes * max(0, num_training - num_sample))
    return min(wanted, int(SHARE * free_memory()))


def _bytes_of_an_image(profile: Profile) -> int:
    """What a run keeps of every image at its peak: teacher features as read, unit-length and centred; logits, codes."""
    return 10 * profile.num_features + objective_of(profile.plan).bytes_an_image(profile.plan)


def _adapter_bytes(plan: AdaptPlan, profile: Profile) -> tuple[int, int] | None:
    if not plan.mode.has_mask:
        return None
    num_masked = profile.num_weights if plan.mode.moves else 0
    fixed = HEADER_BYTES + 2 * profile.num_statistics
    fixed += plan.num_classes * (profile.num_features + 8)
    low, high = (round(num_masked * bits / 8) + fixed for bits in _mask_bits(plan))
    return low, high


def _mask_bits(plan: AdaptPlan) -> tuple[float, float]:
    if plan.density is None:
        return MASK_BITS
    entropy = -sum(part * math.log2(part) for part in (plan.density, 1 - plan.density))
    return 0.3 * entropy, entropy  # from scores close to the magnitudes, which the base tells, to random ones


def _peak_process_bytes() -> int | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
