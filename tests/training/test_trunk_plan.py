"""Whether a run keeps what its first blocks give follows from what it saves, what it may take, and what was asked."""

from dataclasses import replace
from typing import Any

import pytest
import timm

from smn_cli.backbones.loading import Backbone, wrap_backbone
from smn_cli.config.cache_budget import parse_budget
from smn_cli.config.options import AdaptOptions
from smn_cli.config.plan import AdaptPlan
from smn_cli.errors import UsageError
from smn_cli.training import trunk_plan
from smn_cli.training.planning import make_plan
from smn_cli.training.resolve_plan import resolve_plan
from smn_cli.training.trunk_plan import with_trunk_cache
from tests.conftest import RESNET, VIT

NUM_IMAGES = 1000
AN_IMAGE = 2 * 32 * 16 * 16
"""Bytes of float16 activations before layer2 of the small ResNet, at 64 px."""


@pytest.fixture(scope="module")
def resnet() -> Backbone:
    return wrap_backbone(timm.create_model(RESNET))


def planned(num_images: int = NUM_IMAGES, **options: Any) -> AdaptPlan:
    settings: dict[str, Any] = {"size": 64, "teacher": ("stages",), "mask_only": ("late:0.1",)} | options
    return make_plan(AdaptOptions(**settings), num_images)


def cached(
    backbone: Backbone, asked: str, num_images: int = NUM_IMAGES, num_processes: int = 1, **options: Any
) -> AdaptPlan:
    return with_trunk_cache(planned(num_images, **options), asked, backbone, num_images, num_processes)


@pytest.mark.parametrize(
    ("text", "num_bytes"),
    [("off", 0), ("auto", None), ("2GB", 2 * 10**9), ("1.5 mb", 1_500_000), ("300", 300), ("7kB", 7000)],
)
def test_budgets_are_read_in_powers_of_1000(text: str, num_bytes: int | None) -> None:
    assert parse_budget(text) == num_bytes


@pytest.mark.parametrize("text", ["", "much", "2 PB", "-1GB", "0", "0.1B", "1e9", "nan", "2GBGB"])
def test_what_is_no_budget_is_refused_by_its_name(text: str) -> None:
    with pytest.raises(UsageError, match=r"`cache_trunk` is .*: expected auto, off or the most bytes, such as 500MB"):
        AdaptOptions(cache_trunk=text)


@pytest.mark.parametrize(("num_draws", "spare"), [(2, 0), (2, -1), (3, 0), (4, 0), (9, 0)])
def test_bytes_are_never_more_than_asked_for_and_draws_as_many_as_they_hold(
    resnet: Backbone, num_draws: int, spare: int
) -> None:
    num_training = NUM_IMAGES - 100
    budget = num_draws * AN_IMAGE * num_training + (AN_IMAGE * num_training + spare if spare else 0)
    plan = cached(resnet, str(budget))
    assert plan.cached_views == min(num_draws, trunk_plan.MOST_DRAWS)
    assert plan.cached_bytes == plan.cached_views * AN_IMAGE * num_training <= budget
    assert f"{plan.cached_bytes:,} bytes" in plan.reasons["cached_views"]
    assert "before layer2" in plan.reasons["cached_views"]


def test_less_than_two_draws_are_not_kept_and_said(resnet: Backbone) -> None:
    too_few = str(2 * AN_IMAGE * 900 - 1)
    with pytest.raises(
        UsageError, match=f"`cache_trunk` {too_few}: 2 views of every image take {2 * AN_IMAGE * 900:,}"
    ):
        cached(resnet, too_few)


def test_auto_takes_a_quarter_of_the_free_memory_and_two_gigabytes_at_most(
    resnet: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trunk_plan, "free_memory", lambda: 4 * 3 * AN_IMAGE * 900)
    assert cached(resnet, "auto").cached_views == 3
    assert cached(resnet, "auto", num_processes=3).cached_views == 0
    monkeypatch.setattr(trunk_plan, "free_memory", lambda: 4 * AN_IMAGE * 900)
    plan = cached(resnet, "auto")
    assert (plan.cached_views, plan.cached_bytes) == (0, 0)
    assert "2 views of every image take" in plan.reasons["cached_views"]
    monkeypatch.setattr(trunk_plan, "free_memory", lambda: 10**15)
    monkeypatch.setattr(trunk_plan, "AUTO_BYTES", 2 * AN_IMAGE * 900)
    assert cached(resnet, "auto").cached_views == 2


@pytest.mark.parametrize(("steps", "num_draws"), [(20, 0), (84, 0), (85, 2), (127, 3), (1000, 4)])
def test_so_many_draws_are_kept_that_each_is_seen_again(resnet: Backbone, steps: int, num_draws: int) -> None:
    """900 images, 32 a step: a draw has to be seen one and a half times."""
    for asked in ("auto", "1TB"):
        plan = cached(resnet, asked, steps=steps)
        assert plan.cached_views == num_draws
        assert ("would save nothing" in plan.reasons["cached_views"]) == (num_draws == 0)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"compile": True}, "`compile` compiles the network as one"),
        ({"grad_checkpoint": True}, "`grad_checkpoint` runs blocks in parts"),
        ({"norm_stats": "adapt"}, "statistics adapt, also those of the first blocks"),
        ({"local_views": 2}, "views of two sizes are not kept"),
        ({"mask_only": ("late:0",)}, "no block before layer1 is left whole"),
    ],
)
def test_what_cannot_be_kept_is_said_and_refused_where_bytes_were_asked_for(
    resnet: Backbone, options: dict[str, Any], words: str
) -> None:
    plan = cached(resnet, "auto", **options)
    assert (plan.cached_views, plan.cached_bytes) == (0, 0)
    assert words in plan.reasons["cached_views"]
    with pytest.raises(UsageError, match=f"`cache_trunk` 2GB: .*{words}.*; leave it out, or give auto"):
        cached(resnet, "2GB", **options)


def test_a_trunk_of_little_work_is_kept_only_where_bytes_are_given(
    resnet: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trunk_plan, "LEAST_SHARE", 0.9)
    plan = cached(resnet, "auto")
    assert plan.cached_views == 0
    assert "of the work lies before layer2: too little" in plan.reasons["cached_views"]
    assert cached(resnet, "1GB").cached_views == 4


def test_of_many_images_only_those_that_train_are_kept(resnet: Backbone) -> None:
    """1,500 steps of 32 see 12,000 images four times, whatever the folder holds."""
    all_of_them, more = cached(resnet, "1TB", num_images=12_500), cached(resnet, "1TB", num_images=60_000)
    assert more.cached_views == 2
    assert more.cached_bytes == all_of_them.cached_bytes == 2 * AN_IMAGE * 12_000


def test_off_is_the_default_and_leaves_a_plan_as_it_is(resnet: Backbone) -> None:
    plan = planned()
    assert with_trunk_cache(plan, AdaptOptions().cache_trunk, resnet, NUM_IMAGES) is plan
    assert (plan.cached_views, plan.cached_bytes, "cached_views" in plan.reasons) == (0, 0, False)


def test_auto_keeps_where_codes_are_learned_too(resnet: Backbone) -> None:
    codes = make_plan(AdaptOptions(size=64, mask_only=("late:0.1",)), NUM_IMAGES)
    assert codes.objective == "taught"
    assert with_trunk_cache(codes, "auto", resnet, NUM_IMAGES).cached_views == 4


def test_a_plan_goes_to_json_and_back_with_what_is_kept(resnet: Backbone) -> None:
    plan = cached(resnet, "1GB")
    assert AdaptPlan.from_json(plan.to_json()) == plan
    old = {name: value for name, value in plan.to_json().items() if not name.startswith("cached")}
    assert AdaptPlan.from_json(old) == replace(plan, cached_views=0, cached_bytes=0)


def test_a_network_whose_first_block_is_masked_has_nothing_to_keep() -> None:
    vit = wrap_backbone(timm.create_model(VIT, dynamic_img_size=True))
    options = AdaptOptions(size=160, teacher=("stages",), cache_trunk="2GB")
    with pytest.raises(UsageError, match=r"`cache_trunk` 2GB: no block before blocks\.0 is left whole"):
        resolve_plan(options, NUM_IMAGES, vit, "cpu")
    plan = resolve_plan(replace(options, cache_trunk="auto"), NUM_IMAGES, vit, "cpu")
    assert plan.reasons["cached_views"] == "no block before blocks.0 is left whole"
