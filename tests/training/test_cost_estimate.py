"""What a run is foretold to cost: the images that the base looks at, by who teaches."""

from dataclasses import replace

import pytest

from smn_cli.config.options import AdaptOptions
from smn_cli.config.plan import AdaptPlan
from smn_cli.recipes import Keep
from smn_cli.training.cost_estimate import estimate_run
from smn_cli.training.planning import make_plan
from smn_cli.training.profiling import Profile

HALVES, CERTIFYING = 2 * 100, 2 * 200
HELD_OUT, SEARCHED, TRAINING = 400, 1000, 3600
WHOLE = 3 * HELD_OUT + SEARCHED
"""All that a judge of a lesson of neighbourhoods looks at."""
MODEL = "vit_tiny_patch16_224"


def profile_of(plan: AdaptPlan, *, has_trunk: bool = True, pixel_bytes: float = 0.0) -> Profile:
    """In which nothing but a whole network's look takes time."""
    return Profile(
        plan=plan, num_weights=1, num_tensors=1, num_statistics=0, num_features=8, step_s=[0.0],
        teacher_embedding_s=0.0, judge_s=0.0, look_s=1.0, preparation_s=0.0, state_bytes=0, pixel_bytes=pixel_bytes,
        device_bytes=None, trunk_s=0.0, has_trunk=has_trunk, alarms=[],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("options", "teacher_size", "keep", "has_trunk", "expected"),
    [
        # the teacher's pass has seen those held out and those searched as they are
        (AdaptOptions(), 224, "best", True, 2 * HELD_OUT + HALVES + CERTIFYING),
        (AdaptOptions(), 224, "best", False, WHOLE + HALVES + CERTIFYING),
        (AdaptOptions(), 224, "last", True, 2 * HELD_OUT),
        (AdaptOptions(teacher=("last",)), 224, "best", True, 2 * HELD_OUT + HALVES),
        (AdaptOptions(size=96, teacher=("stages",)), 192, "best", True, WHOLE + TRAINING + HALVES + CERTIFYING),
        (AdaptOptions(teacher=(MODEL,)), 224, "best", True, WHOLE + TRAINING + HALVES),
        (AdaptOptions(teacher=("stages", MODEL)), 224, "best", True, 2 * HELD_OUT + HALVES),
        (AdaptOptions(size=96), 192, "best", True, 2 * HELD_OUT + 2 * SEARCHED + HALVES),
    ],
)
def test_images_that_the_whole_base_looks_at_are_those_of_the_run(
    options: AdaptOptions, teacher_size: int, keep: Keep, has_trunk: bool, expected: int
) -> None:
    plan = replace(make_plan(options, 4000, native_size=224), teacher_size=teacher_size, keep=keep)
    assert plan.num_holdout == HELD_OUT
    estimate = estimate_run(
        profile_of(plan, has_trunk=has_trunk), num_usable=4000, num_sample=64, check_s=0.0, path_bytes=10
    )
    assert estimate.seconds["evaluations"] == expected


@pytest.mark.parametrize(
    ("options", "free_bytes", "num_kept"),
    [
        (AdaptOptions(), 10**12, TRAINING - 64),
        (AdaptOptions(), 2 * 10**6, 1000),  # no more than half of what is free
        (AdaptOptions(steps=112), 10**12, 0),  # 3,584 images, each seen once
    ],
)
def test_memory_holds_decoded_images_that_come_again(
    monkeypatch: pytest.MonkeyPatch, options: AdaptOptions, free_bytes: int, num_kept: int
) -> None:
    monkeypatch.setattr("smn_cli.training.cost_estimate.free_memory", lambda: free_bytes)
    monkeypatch.setattr("smn_cli.training.cost_estimate._peak_process_bytes", lambda: 0)
    plan = make_plan(options, 4000, native_size=224)
    told = [
        estimate_run(profile_of(plan, pixel_bytes=each), num_usable=4000, num_sample=64, check_s=0.0, path_bytes=10)
        for each in (0.0, 1000.0)
    ]
    without, with_pixels = (estimate.process_bytes or 0 for estimate in told)
    assert with_pixels - without == 1000 * num_kept
