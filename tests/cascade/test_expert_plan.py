"""An expert's plan is the dispatcher's, but for what follows from the number of images."""

from dataclasses import replace
from typing import Any

import pytest

from smn_cli.cascade.expert_plan import make_expert_plan, min_images
from smn_cli.cascade.options import CascadeOptions
from smn_cli.config.options import AdaptOptions
from smn_cli.errors import DataError, UsageError
from smn_cli.training.planning import make_plan


@pytest.mark.parametrize("recipe", ["default", "swav", "paper"])
def test_all_images_in_one_cluster_give_the_dispatchers_plan_again(recipe: str) -> None:
    dispatcher = make_plan(AdaptOptions(recipe=recipe, lr_scores=0.7, local_views=3, seed=4), 1000)
    assert make_expert_plan(dispatcher, 1000, seed=4) == dispatcher


def test_it_takes_as_many_steps_as_the_dispatcher_unless_told_otherwise() -> None:
    dispatcher = make_plan(AdaptOptions(recipe="paper", batch_size=10), 1000)
    expert = make_expert_plan(dispatcher, 200, num_steps=None)
    assert expert.num_steps == dispatcher.num_steps
    assert expert.num_steps / expert.steps_per_epoch == 150 * 5  # the paper: epochs times all images over the cluster's
    assert expert.queue_start_step == expert.num_steps // 5 // 20 * 20
    assert "as in the paper" in expert.reasons["num_steps"]
    assert make_expert_plan(dispatcher, 200, num_steps=7).num_steps == 7


def test_prototypes_follow_the_cluster_unless_they_are_inherited_or_were_wished_for() -> None:
    taught = make_plan(AdaptOptions(size=64), 3000)
    assert make_expert_plan(taught, 600).num_prototypes == make_plan(AdaptOptions(size=64), 600).num_prototypes == 36
    wished = make_plan(AdaptOptions(size=64, prototypes=50), 3000)
    assert make_expert_plan(wished, 600).num_prototypes == 50
    swapped = make_plan(AdaptOptions(recipe="swav"), 3000)
    assert make_expert_plan(swapped, 600).num_prototypes == swapped.num_prototypes == 100


@pytest.mark.parametrize(
    ("options", "native_size"), [({}, 224), ({"size": 64, "teacher": ("stages", "last")}, 224), ({"size": 224}, 288)]
)
def test_an_expert_has_the_lesson_of_its_dispatcher(options: dict[str, Any], native_size: int) -> None:
    dispatcher = make_plan(AdaptOptions(**options), 3000, native_size=native_size)
    expert = make_expert_plan(dispatcher, 600)
    assert (expert.objective, expert.teachers, expert.batch_size) == (
        dispatcher.objective,
        dispatcher.teachers,
        dispatcher.batch_size,
    )
    assert bool(expert.num_prototypes) == (dispatcher.objective == "taught")
    assert ("num_prototypes" in expert.reasons) == (dispatcher.objective == "taught")


def test_scores_do_not_wait_for_a_head_that_is_inherited() -> None:
    dispatcher = make_plan(AdaptOptions(recipe="swav"), 3000)
    assert dispatcher.head_steps > 0
    assert make_expert_plan(dispatcher, 1000, has_head=True).head_steps == 0
    assert make_expert_plan(dispatcher, 1000, has_head=False).head_steps > 0


def test_an_expert_starts_at_the_density_that_its_dispatcher_has_come_down_to() -> None:
    falling = AdaptOptions(mask_kind="topk", density=0.8, density_start=1.0)
    expert = make_expert_plan(make_plan(falling, 1000), 200)
    assert (expert.density, expert.density_start) == (0.8, None)


def test_an_expert_keeps_nothing_of_what_its_dispatcher_kept_of_other_images() -> None:
    dispatcher = replace(make_plan(AdaptOptions(), 1000), cached_views=4, cached_bytes=10**6)
    expert = make_expert_plan(dispatcher, 200)
    assert (expert.cached_views, expert.cached_bytes) == (0, 0)


@pytest.mark.parametrize(("keep", "least"), [("best", 64 + 30), ("last", 64)])
def test_a_batch_and_those_that_judge_are_the_least(keep: str, least: int) -> None:
    dispatcher = replace(make_plan(AdaptOptions(size=64), 1000), keep=keep)  # type: ignore[arg-type]
    assert min_images(dispatcher) == least
    assert make_expert_plan(dispatcher, least).num_holdout == least - 64
    with pytest.raises(DataError, match=f"{least - 1} images are too few for an expert: expected {least}"):
        make_expert_plan(dispatcher, least - 1)


@pytest.mark.parametrize(
    "wrong",
    [{"experts": 0}, {"steps": 0}, {"dim": 0}, {"seed": -1}, {"seed": 1 << 32}, {"keep": "all"}, {"lr_scores": -1.0}],
)
def test_numbers_out_of_range_are_refused_by_option(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=f"`{next(iter(wrong))}` is"):
        CascadeOptions(**wrong)
