"""Who teaches below a backbone's native size."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from smn_cli.backbones.loading import Backbone
from smn_cli.config.options import AdaptOptions
from smn_cli.training import lesson
from smn_cli.training.resolve_plan import resolve_plan
from tests.small_runs import Workshop

NUM_IMAGES = 400


@pytest.fixture
def backbone(workshop: Callable[[str], Workshop]) -> Backbone:
    """test_resnet with a classifier of a hundred classes that is sure of nothing."""
    loaded = workshop("test_resnet").backbone()
    weight, bias = torch.zeros(100, loaded.num_features), torch.zeros(100)
    return replace(loaded, classifier={"fc.weight": weight, "fc.bias": bias}, classifier_name="fc")


@pytest.fixture
def paths(workshop: Callable[[str], Workshop]) -> list[Path]:
    return workshop("test_resnet").images.good


@pytest.fixture(autouse=True)
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lesson, "usual_short_side", lambda _: 1000.0)


def objective(backbone: Backbone, paths: Sequence[Path], **options: object) -> str:
    small = AdaptOptions(size=64, steps=10, **options)  # type: ignore[arg-type]
    return resolve_plan(small, NUM_IMAGES, backbone, "cpu", paths=paths).objective


def test_stages_teach_below_the_native_size_where_the_classifier_is_not_sure(
    backbone: Backbone, paths: list[Path]
) -> None:
    plan = resolve_plan(AdaptOptions(size=64, steps=10), NUM_IMAGES, backbone, "cpu", paths=paths)
    assert (plan.objective, plan.teachers) == ("neighbourhood", ("stages",))
    assert plan.views.global_size == 64 < plan.teacher_size == 128
    assert "0.01 in the mean" in plan.reasons["teachers"]


def test_codes_teach_images_that_the_classifier_knows(backbone: Backbone, paths: list[Path]) -> None:
    sure = backbone.classifier["fc.bias"].index_fill(0, torch.tensor(3), 50.0)
    knows = replace(backbone, classifier={**backbone.classifier, "fc.bias": sure})
    assert objective(knows, paths) == "taught"


def test_codes_teach_where_nobody_can_be_asked(
    backbone: Backbone, paths: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert objective(backbone, paths) == "neighbourhood"
    assert objective(backbone, ()) == "taught"
    assert objective(replace(backbone, classifier={}), paths) == "taught"
    few = {name: tensor[:99] for name, tensor in backbone.classifier.items()}
    assert objective(replace(backbone, classifier=few), paths) == "taught"
    monkeypatch.setattr(lesson, "usual_short_side", lambda _: 0.79 * backbone.native_size)
    assert objective(backbone, paths) == "taught"


def test_a_recipe_of_one_objective_is_not_asked(
    backbone: Backbone, paths: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> Tensor:
        raise AssertionError("asked")

    monkeypatch.setattr(lesson, "extract_features", refuse)
    assert objective(backbone, paths, recipe="swav") == "swapped"
    assert objective(backbone, paths, teacher=("last",)) == "neighbourhood"
