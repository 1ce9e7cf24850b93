"""A plan that comes back from a file is what a plan can be."""

import json
from typing import Any

import pytest

from smn_cli.config.plan import AdaptPlan
from tests.training.test_mask_setup import planned

PLAN = planned()


def changed(**changes: Any) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(json.dumps(PLAN.to_json()))
    views = changes.pop("views", {})
    return {**content, **changes, "views": {**content["views"], **views}}


def test_a_plan_comes_back_as_it_was() -> None:
    assert AdaptPlan.from_json(changed()) == PLAN
    assert AdaptPlan.from_json(changed(lr_head=1, density=None)).lr_head == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"num_steps": 1.5},
        {"num_steps": True},
        {"num_steps": None},
        {"batch_size": "8"},
        {"lr_scores": float("nan")},
        {"lr_scores": "x"},
        {"keep": "first"},
        {"keep": []},
        {"density": "x"},
        {"teachers": [3]},
        {"reasons": {"size": 3}},
        {"views": {"num_global": 2.5}},
        {"views": {"global_area": [0.5]}},
        {"views": {"jitter": [1, 2, 3, "x"]}},
    ],
)
def test_a_field_that_holds_what_it_cannot_is_named(changes: dict[str, Any]) -> None:
    name = next(iter(changes.get("views", changes)))
    with pytest.raises(TypeError, match=f"{name} is "):
        AdaptPlan.from_json(changed(**changes))
