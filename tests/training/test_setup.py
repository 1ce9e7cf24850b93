"""A run over more images than it can use looks at a draw of them, and is the same run when it is started again."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from smn_cli.config.options import AdaptOptions
from smn_cli.data.images.validate import ImageSet, check_images
from smn_cli.errors import UsageError
from smn_cli.training.image_split import check_for_run, drawn_for, num_wanted, split_images
from smn_cli.training.planning import make_plan
from smn_cli.training.run_context import RunRequest
from smn_cli.training.session import Session
from tests.conftest import write_images
from tests.small_runs import SMALL, Workshop, equal, scores_of


def test_only_what_a_run_can_use_is_wanted() -> None:
    native = AdaptOptions()
    assert num_wanted(31, native) == 31
    assert num_wanted(1_200_000, native) == 1500 * 32 // 4 + 500
    options = AdaptOptions(size=64)
    assert num_wanted(31, options) == 31  # fewer than a batch: refused later, with all bad ones named
    assert num_wanted(90_000, options) == 90_000
    assert num_wanted(1_200_000, options) == 1500 * 64 + 500
    assert num_wanted(1_200_000, replace(options, prototypes=50)) == 1500 * 64 + 500
    assert num_wanted(1_200_000, replace(options, keep="last")) == 1500 * 64
    assert num_wanted(1_200_000, replace(options, steps=10)) == 640 + 500
    assert num_wanted(1_200_000, replace(options, epochs=1)) == 1_200_000
    assert num_wanted(1_200_000, replace(options, recipe="paper")) == 1_200_000


def test_an_option_without_effect_at_any_size_is_refused_before_images_are_looked_at() -> None:
    with pytest.raises(UsageError, match="`prototypes` has no effect"):
        num_wanted(1000, AdaptOptions(prototypes=50, teacher=("last",)))


@pytest.mark.parametrize(
    ("options", "looks"),
    [
        (AdaptOptions(), [80, 160, 200]),
        (AdaptOptions(steps=3), [2, 3]),
        (AdaptOptions(steps=999), [400, 800, 999]),
        (AdaptOptions(steps=1000), [200, 400, 600, 800, 1000]),
        (AdaptOptions(size=64), [40, 80, 120, 160, 200]),
        (AdaptOptions(recipe="swav"), [40, 80, 120, 160, 200]),
    ],
)
def test_short_runs_that_relations_teach_are_judged_less_often(options: AdaptOptions, looks: list[int]) -> None:
    plan = make_plan(options, 1000)
    steps = range(1, plan.num_steps + 1)
    assert [step for step in steps if step % plan.eval_every == 0 or step == plan.num_steps] == looks


@pytest.mark.parametrize("num_images", [64, 100, 1440, 96_500, 120_000, 10**6])
@pytest.mark.parametrize("num_bad", [0, 1, 9])
def test_a_plan_made_after_the_look_never_needs_more_than_was_looked_at(num_images: int, num_bad: int) -> None:
    mine: tuple[dict[str, Any], ...] = (
        {},
        {"epochs": 1},
        {"steps": 3},
        {"steps": 3000},
        {"steps": 700, "size": 64},
        {"keep": "last", "steps": 7},
    )
    for options in (AdaptOptions(**each) for each in mine):
        wanted = num_wanted(num_images, options)
        if wanted < num_images and num_images - num_bad >= 64:
            assert make_plan(options, num_images - num_bad).max_images <= wanted


@pytest.mark.parametrize(
    ("num_images", "options", "expected"),
    [
        (12_500, {}, 0),
        (13_000, {}, 12_000),
        (48_500, {}, 12_000),
        (10**6, {}, 12_000),
        (10**6, {"steps": 1500}, 0),
        (10**6, {"batch_size": 8}, 10_000),
        (10**6, {"batch_size": 64}, 24_000),
        (10**6, {"epochs": 1}, 0),
        (10**6, {"size": 64}, 0),
    ],
)
def test_of_very_many_images_so_many_train_that_each_is_seen_four_times(
    num_images: int, options: dict[str, Any], expected: int
) -> None:
    plan = make_plan(AdaptOptions(**options), num_images)
    assert plan.training_images == expected
    assert ("training_images" in plan.reasons) == bool(expected)
    paths = [Path(str(number)) for number in range(min(num_images, 150_000))]
    steps_take = plan.num_steps * plan.batch_size
    assert len(split_images(paths, plan).training) == min(len(paths) - plan.num_holdout, expected or steps_take)


def test_a_run_names_the_images_alone_that_it_draws(workshop: Callable[..., Workshop], tmp_path: Path) -> None:
    place = workshop()
    plan = replace(make_plan(AdaptOptions(**{**SMALL, "steps": 3}), 24, native_size=10**6), training_images=9)
    images = ImageSet(place.images.good, {tmp_path / "bad": "why"}, num_unseen=5)
    drawn = drawn_for(plan, images)
    assert len(drawn.good) == 9
    assert drawn.good == [path for path in images.good if path in drawn.good]
    assert (drawn.bad, drawn.num_unseen, drawn.num_found) == (images.bad, 20, images.num_found)
    for most in (0, 24):
        assert drawn_for(replace(plan, training_images=most), images) == images
    assert drawn_for(replace(plan, seed=1), images).good != drawn.good

    request = RunRequest(place.runs / "drawn", images, AdaptOptions(**SMALL), str(place.weights), plan=plan)
    session = Session.start(request, place.backbone())
    assert sorted(session.split.training) == drawn.good == session.folder.read_images()
    assert session.folder.read_config()["images"]["good"] == 9
    session.close()
    assert place.resume("drawn").split.training == session.split.training


@pytest.fixture
def many(tmp_path: Path) -> list[Path]:
    """Sixty images, of which two are bad."""
    write_images(tmp_path / "many", 60)
    for number in range(2):
        (tmp_path / "many" / f"{number:03d}.png").write_bytes(b"no image")
    return sorted((tmp_path / "many").iterdir())


def test_where_all_images_are_used_nothing_is_drawn(many: list[Path]) -> None:
    options = AdaptOptions(**{**SMALL, "steps": 7, "max_bad": 0.5})
    assert check_for_run(many, options) == check_images(many, max_bad=0.5)


def test_a_run_over_a_draw_remembers_it_and_resumes_to_the_same_masks(
    workshop: Callable[..., Workshop], many: list[Path]
) -> None:
    shop = workshop()
    options: dict[str, Any] = {"steps": 4, "max_bad": 0.5}
    shop.images = check_for_run(many, AdaptOptions(**{**SMALL, **options}))
    whole = shop.finish("whole", **options)
    config = whole.folder.read_config()
    assert config["images"] == {"found": 60, "good": 32, "bad": len(shop.images.bad)}
    assert whole.plan.steps_per_epoch == shop.images.num_usable // 8  # what is not looked at counts as usable
    assert whole.folder.read_images() == shop.images.good
    assert sorted(whole.split.training) == shop.images.good

    shop.images = check_for_run(many, AdaptOptions(**{**SMALL, **options}))
    part = shop.start("part", **options)
    _take(part, 2)
    part._save()
    again = shop.resume("part")
    _take(again, 2)
    assert equal(scores_of(again), scores_of(whole))
    assert split_images(again.folder.read_images(), again.plan) == whole.split


def _take(session: Session, num_steps: int) -> None:
    for _, _report in zip(range(num_steps), session.steps(), strict=False):
        pass
