"""What may be asked of a mask, and what is refused, in one line, before anything is loaded."""

from typing import Any

import pytest

from smn_cli.config.mask_selection import Selection, parse_selection
from smn_cli.config.options import AdaptOptions
from smn_cli.config.plan import AdaptPlan
from smn_cli.errors import UsageError
from smn_cli.training.planning import make_plan


def test_names_add_up_and_all_else_narrows() -> None:
    specs = ("name:*.bias", "blocks:2", "name:a:b", "all-but:*bn*", "random:0.25")
    assert parse_selection(specs) == Selection(("*.bias", "a:b"), ("*bn*",), 2, "random", 0.25)
    assert parse_selection(()) == Selection()


@pytest.mark.parametrize(
    "spec",
    ["layer1", "blocks:", "blocks:0", "blocks:-1", "blocks:1.5", "blocks:²", "name:", "all-but:", "top:0.5"],
)
def test_what_cannot_be_understood_is_refused_by_its_own_words(spec: str) -> None:
    with pytest.raises(UsageError, match=f"`mask_only` {spec}: expected "):
        parse_selection((spec,))


@pytest.mark.parametrize("spec", ["random", "random:0", "largest:1.1", "smallest:x", "random:nan", "random:1e-9"])
def test_a_share_is_a_fraction(spec: str) -> None:
    with pytest.raises(UsageError, match=f"`mask_only` {spec}: expected a fraction above 0 and at most 1"):
        parse_selection((spec,))


@pytest.mark.parametrize(
    "specs",
    [("blocks:1", "blocks:2"), ("blocks:1", "late:.1"), ("random:.5", "largest:.5"), ("random:.5", "random:.1")],
)
def test_narrowing_twice_in_one_way_is_refused(specs: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match="give one of blocks and late, and one of random, largest and smallest"):
        parse_selection(specs)


TOPK = {"mask_kind": "topk", "density": 0.5}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mask_kind": "top"}, "`mask_kind` is top: expected threshold or topk"),
        ({"mask_kind": "topk"}, "`mask_kind` topk needs `density`"),
        ({"density": 0.5}, "`density` has no effect on a threshold: add `mask_kind` topk"),
        ({"density_start": 1.0}, "`density_start` has no effect on a threshold"),
        (TOPK | {"density": 0.0}, "`density` is 0.0: expected a fraction above 0 and below 1"),
        (TOPK | {"density": 1.0}, "`density` is 1.0"),
        (TOPK | {"density_start": 0.5}, "`density_start` is 0.5: expected above `density` and at most 1"),
        (TOPK | {"density_start": 1.01}, "`density_start` is 1.01"),
        (TOPK | {"score_init": "constant"}, "`score_init` constant makes all scores equal"),
        ({"score_init": "kaiming"}, "`score_init` kaiming starts half of the scores below 0"),
        ({"score_init": "ones"}, "`score_init` is ones: expected one of constant, magnitude, kaiming"),
        (TOPK | {"train": "full"}, "`density` has no effect with `train` full"),
        ({"train": "norm", "mask_only": ("blocks:1",)}, "`mask_only` has no effect with `train` norm"),
        ({"train": "full", "score_init": "magnitude"}, "`score_init` has no effect with `train` full"),
        ({"train": "full", "mask_kind": "topk"}, "`mask_kind` has no effect with `train` full"),
        ({"train": "full", "mask_only": ("random:.5",)}, "`train` full trains whole tensors: `mask_only` random"),
    ],
)
def test_wishes_that_make_no_sense_together_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError) as error:
        AdaptOptions(**options)
    assert words in str(error.value)


def test_full_fine_tuning_of_some_tensors_makes_sense() -> None:
    assert AdaptOptions(train="full", mask_only=("blocks:1", "all-but:*bn*")).train == "full"


@pytest.mark.parametrize(
    ("recipe", "wish", "score_init"),
    [("default", None, "magnitude"), ("paper", None, "kaiming"), ("default", "kaiming", "kaiming")],
)
def test_topk_scores_start_apart_from_each_other(recipe: str, wish: Any, score_init: str) -> None:
    plan = make_plan(AdaptOptions(recipe=recipe, mask_kind="topk", density=0.5, score_init=wish), 1000)
    assert (plan.mask_kind, plan.density, plan.score_init) == ("topk", 0.5, score_init)
    assert ("score_init" in plan.reasons) == (recipe == "paper")
    assert {"density"} <= plan.reasons.keys()


def test_without_wishes_the_mask_is_the_recipes() -> None:
    plan = make_plan(AdaptOptions(recipe="paper"), 1000)
    assert (plan.mask_kind, plan.density, plan.density_start, plan.mask_only) == ("threshold", None, None, ())
    assert (plan.score_init, plan.include_stem, plan.include_depthwise) == ("constant", True, True)
    assert not {"density", "density_start", "mask_only", "score_init"} & plan.reasons.keys()


@pytest.mark.parametrize("wish", [True, False])
@pytest.mark.parametrize("recipe", ["default", "paper"])
def test_stem_and_depthwise_are_as_asked(recipe: str, wish: bool) -> None:
    plan = make_plan(AdaptOptions(recipe=recipe, include_stem=wish, include_depthwise=wish), 1000)
    assert (plan.include_stem, plan.include_depthwise) == (wish, wish)


def test_a_plan_survives_its_json_and_an_older_one_gets_the_defaults() -> None:
    options = AdaptOptions(mask_kind="topk", density=0.5, density_start=1.0, mask_only=("blocks:1",))
    plan = make_plan(options, 1000)
    written = plan.to_json()
    assert AdaptPlan.from_json({**written, "mask_only": list(written["mask_only"])}) == plan
    small = make_plan(AdaptOptions(size=64), 1000)
    assert AdaptPlan.from_json({k: v for k, v in small.to_json().items() if k not in NEW}) == small


NEW = {"mask_kind", "density", "density_start", "mask_only"}


def test_a_plan_that_lacks_an_old_setting_is_refused() -> None:
    written = make_plan(AdaptOptions(), 1000).to_json()
    del written["threshold"]
    with pytest.raises(KeyError, match="threshold"):
        AdaptPlan.from_json(written)
