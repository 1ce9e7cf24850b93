"""What a run is foretold to cost: the images that the base looks at, by who teaches."""

from dataclasses import replace

import pytest

from smn_cli.config.options import AdaptOptions
from smn_cli.training.cost_estimate import estimate_run
from smn_cli.training.planning import make_plan
from smn_cli.training.profiling import Profile

HALVES, CERTIFYING = 2 * 100, 2 * 200


@pytest.mark.parametrize(
    ("options", "teacher_size", "expected"),
    [
        (AdaptOptions(), 224, HALVES + 2 * 100 + CERTIFYING),  # its pass has seen 100 and 900 whole images
        (AdaptOptions(size=96, teacher=("stages",)), 192, HALVES + 3 * 100 + 900 + 900 + CERTIFYING),
        (AdaptOptions(teacher=("vit_tiny_patch16_224",)), 224, HALVES + 3 * 100 + 900 + 900),
        (AdaptOptions(teacher=("stages", "vit_tiny_patch16_224")), 224, HALVES + 2 * 100),
    ],
)
def test_images_that_the_whole_base_looks_at_are_those_of_the_run(
    options: AdaptOptions, teacher_size: int, expected: int
) -> None:
    plan = replace(make_plan(options, 1000, native_size=224), teacher_size=teacher_size)
    assert plan.num_holdout == 100
    profile = Profile(
        plan=plan, num_weights=1, num_tensors=1, num_statistics=0, num_features=8, step_s=[0.0],
        teacher_embedding_s=0.0, judge_s=0.0, look_s=1.0, preparation_s=0.0, state_bytes=0, device_bytes=None,
        trunk_s=0.0, alarms=[],
    )  # fmt: skip
    estimate = estimate_run(profile, num_usable=1000, num_sample=64, check_s=0.0, path_bytes=10)
    assert estimate.seconds["evaluations"] == expected
