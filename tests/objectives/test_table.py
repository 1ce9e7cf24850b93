"""An objective is one class and one row: a toy one, known to this file alone, goes the whole road."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

import smn_cli
from smn_cli.cascade.expert_plan import make_expert_plan
from smn_cli.config.options import AdaptOptions
from smn_cli.errors import UsageError
from smn_cli.objectives.base import Objective, ObjectiveInputs, PlanRules
from smn_cli.objectives.table import OBJECTIVES, refuse_idle_options
from smn_cli.recipes import RECIPES, WITH_LABELS
from smn_cli.runs.pack import pack_run
from smn_cli.training.planning import make_plan
from smn_cli.training.session import Session
from tests.conftest import CONVNET
from tests.small_runs import Workshop, equal, masks_of, metrics, scores_of

Make = Callable[..., Workshop]


class NearTheTeacher(Objective):
    """Features are to lie where the teacher's do, all times a number that is learned along."""

    needs_teacher: ClassVar[bool] = True
    rules: ClassVar[PlanRules] = PlanRules(idle_options=("queue", "prototypes"), has_head=True)

    def __init__(self, wanted: Tensor, scale: Tensor) -> None:
        self.wanted = wanted
        self.scale = torch.nn.Parameter(scale.clone())
        self.lr = 0.0

    @classmethod
    def prepare(cls, inputs: ObjectiveInputs) -> dict[str, Tensor]:
        assert inputs.teacher_features is not None
        assert inputs.features_at_start is not None
        assert len(inputs.teacher_features) == 24
        return {"scale": inputs.teacher_features.float().norm() / inputs.features_at_start(24).norm()}

    @classmethod
    def build(cls, inputs: ObjectiveInputs, prepared: dict[str, Tensor]) -> "NearTheTeacher":
        assert inputs.teacher_features is not None
        return cls(inputs.teacher_features.float(), prepared["scale"])

    def before_step(self, lr: float) -> None:
        self.lr = lr

    def loss(self, step: int, positions: Tensor, features: list[Tensor]) -> Tensor:
        return torch.stack([(view * self.scale - self.wanted[positions]).square().mean() for view in features]).mean()

    def parameters(self) -> list[torch.nn.Parameter]:
        return [self.scale]

    @torch.no_grad()
    def after_backward(self, step: int) -> None:
        assert self.scale.grad is not None
        self.scale.sub_(self.lr * self.scale.grad)
        self.scale.grad = None

    def state(self) -> dict[str, Any]:
        return {"scale": self.scale.detach()}

    def load_state(self, state: dict[str, Any]) -> None:
        self.scale.data.copy_(state["scale"])


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> str:
    """The row of the table, and a recipe that names it."""
    monkeypatch.setitem(OBJECTIVES, "near", NearTheTeacher)
    monkeypatch.setitem(
        RECIPES, "near", replace(RECIPES["default"], objective="near", native_objective="", lr_head=0.1)
    )
    return "near"


def start(place: Workshop, name: str, recipe: str) -> Session:
    settings: dict[str, Any] = {
        "recipe": recipe,
        "prototypes": None,
        "queue": None,
        "local_views": 0,
        "lr_scores": 0.5,
        "steps": 3,
    }
    return place.start(name, **settings)


def test_a_toy_objective_trains_resumes_and_packs(workshop: Make, toy: str) -> None:
    place = workshop(CONVNET)
    whole, parts = start(place, "whole", toy), start(place, "parts", toy)
    first = whole.trainer.objective
    assert isinstance(first, NearTheTeacher)
    started = first.scale.item()
    for _ in whole.steps():
        pass
    assert first.scale.item() != started  # its own parameter was trained, at its own rate
    assert len(metrics(whole)) == 3
    assert not all(bool(mask.all()) for mask in masks_of(whole).values())
    next(parts.steps())
    parts._save()
    resumed = place.resume("parts")
    for _ in resumed.steps():
        pass
    assert equal(scores_of(resumed), scores_of(whole))
    second = resumed.trainer.objective
    assert isinstance(second, NearTheTeacher)
    assert torch.equal(second.scale, first.scale)
    resumed.close()
    backbone = place.backbone()
    adapter = pack_run(resumed.folder, backbone)
    masks = adapter.masks(backbone.model.state_dict())
    assert all(torch.equal(masks[name], mask) for name, mask in masks_of(whole).items())


def test_options_and_plan_follow_its_rules(toy: str) -> None:
    with pytest.raises(UsageError, match="`queue` has no effect with `recipe` near"):
        refuse_idle_options(AdaptOptions(recipe=toy, queue=8))
    refuse_idle_options(AdaptOptions(recipe=toy, train="head"))
    plan = make_plan(AdaptOptions(recipe=toy), 1000)
    assert (plan.objective, plan.num_prototypes, plan.queue_length) == ("near", 0, 0)
    assert make_expert_plan(plan, 500).queue_length == 0


def test_every_recipe_names_a_row() -> None:
    for recipes, needs_labels in ((RECIPES, False), (WITH_LABELS, True)):
        for recipe in recipes.values():
            assert OBJECTIVES[recipe.objective].needs_labels is needs_labels


def test_nobody_else_asks_which_objective_a_run_has() -> None:
    root = Path(smn_cli.__file__).parent
    named = re.compile(r"[\"'](taught|swapped|supervised)[\"']|isinstance\([^)]*Objective")
    elsewhere = [
        str(path.relative_to(root))
        for path in sorted(root.rglob("*.py"))
        if named.search(path.read_text()) and path.parent.name != "objectives"
    ]
    assert elsewhere == ["recipes.py"]
