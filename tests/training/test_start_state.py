"""A run that goes on from another: exactly its kept mask, the judge that compares with it, and the way back to it."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from smn_cli.backbones.loading import to_device as put
from smn_cli.errors import CheckpointError
from smn_cli.evaluation.intervals import Gain
from smn_cli.judging.judges import Judgement
from smn_cli.judging.looks import Candidate
from smn_cli.masking.binarize import binarize
from smn_cli.runs.pack import pack_run
from smn_cli.runs.run_folder import RunFolder
from smn_cli.runs.run_result import Origin, read_learned
from smn_cli.training.run_context import RunRequest
from smn_cli.training.session import Session
from smn_cli.training.start_state import StartState, read_start_state
from smn_cli.training.trainer import make_source
from tests.conftest import CONVNET
from tests.small_runs import Workshop, equal, head_of, masks_of, scores_of

Make = Callable[..., Workshop]
FAST: dict[str, Any] = {"lr_scores": 500.0, "steps": 4}
"""A learning rate at which scores cross the threshold within a few steps."""


def go_on(place: Workshop, name: str, first: Session, **changes: Any) -> Session:
    """A run that starts where another one, closed before, has ended."""
    first.close()
    backbone = place.backbone()
    start_state = read_start_state(first.folder, backbone)
    request = RunRequest(
        place.runs / name, place.images, weights=str(place.weights), plan=replace(first.plan, **changes)
    )
    return Session.start(request, backbone, start=start_state)


def keep_what_is(session: Session, step: int) -> None:
    """Let the best_state of a run hold its state as the best."""
    tensors, stats = session.trainer.source.masks(), session.trainer.norm_stats()
    assert session.best_state.consider(step, Judgement(Gain(0.1, 0.05, 0.15), True, {}), tensors, stats)


def density(masks: dict[str, Tensor]) -> float:
    return sum(int(m.sum()) for m in masks.values()) / sum(m.numel() for m in masks.values())


@pytest.mark.slow
@pytest.mark.parametrize("norm_stats", ["adapt", "frozen"])
def test_it_starts_at_the_last_scores_statistics_and_head(workshop: Make, norm_stats: str) -> None:
    place = workshop(CONVNET)
    first = place.finish("first", **FAST, norm_stats=norm_stats)
    assert density(masks_of(first)) < 1
    second = go_on(place, "second", first)
    assert equal(scores_of(second), scores_of(first))
    assert equal(dict(head_of(second).state_dict()), dict(head_of(first).state_dict()))
    assert second.trainer.optimizer.state == {}
    assert second.trainer.step == 0
    learned = read_learned(first.folder)
    assert bool(learned.norm_stats) == (norm_stats == "adapt")
    assert equal(second.trainer.norm_stats(), learned.norm_stats)
    base = place.backbone()
    assert pack_run(second.folder, base).header.adapted_digest == pack_run(first.folder, base).header.adapted_digest


def test_a_kept_state_that_is_not_the_last_gives_exactly_its_mask(workshop: Make) -> None:
    place = workshop(CONVNET)
    first = place.start("first", **FAST, keep="best")
    first.best_state.alarms = []
    for report in first.steps():
        if report.step == 2:
            first.best_state.best_gain = 0.0
            keep_what_is(first, 2)
            kept = {name: mask.clone() for name, mask in masks_of(first).items()}
        first.best_state.alarms = []
    first._save()
    last = masks_of(first)
    assert not equal(kept, last)
    assert read_learned(first.folder).step == 2
    start_state = read_start_state(first.folder, place.backbone())
    found = {name: binarize(scores, first.plan.threshold) for name, scores in start_state.scores.items()}
    assert equal(found, kept)
    agree = {name: kept[name] == last[name] for name in kept}
    scores = scores_of(first)
    assert all(torch.equal(start_state.scores[n][agree[n]], scores[n][agree[n]]) for n in kept)


def test_where_the_base_was_kept_the_recipe_begins_anew(workshop: Make) -> None:
    place = workshop(CONVNET)
    first = place.start("first", **FAST, keep="best", norm_stats="adapt")
    first.best_state.alarms = []
    for _ in first.steps():
        first.best_state = type(first.best_state)()
    first._save()
    assert density(masks_of(first)) < 1
    start_state = read_start_state(first.folder, place.backbone())
    fresh = make_source(place.backbone().model, first.plan).trained
    assert equal(start_state.scores, {name: scores.detach() for name, scores in fresh.items()})
    assert (start_state.norm_stats, start_state.head) == ({}, {})


def test_it_falls_back_to_where_it_started_and_not_to_the_base(workshop: Make) -> None:
    place = workshop(CONVNET)
    first = place.finish("first", **FAST, norm_stats="adapt")
    second = go_on(place, "second", first, keep="best")
    expected = read_learned(first.folder)
    found = read_learned(second.folder)
    assert (found.step, found.judge_gain) == (0, None)
    assert equal(found.masks, expected.masks)
    assert equal(found.norm_stats, expected.norm_stats)
    assert density(found.masks) < 1


@pytest.mark.slow
def test_its_judge_compares_with_where_it_started(workshop: Make) -> None:
    place = workshop(CONVNET)
    first = place.finish("first", **FAST, norm_stats="adapt")
    second = go_on(place, "second", first)
    itself = second.health.judge(Candidate(second.network()))
    assert itself.difference.value == 0
    assert itself.measures["drift"] == pytest.approx(0, abs=1e-6)
    images, backbone = torch.rand(2, 3, 32, 32), place.backbone()
    put(backbone, "cpu")
    started, base = (replace(run.context, backbone=backbone).network_at_start() for run in (second, first))
    with torch.no_grad():
        found, of_base = started(images), base(images)
        pack_run(first.folder, backbone).apply(backbone.model)
        assert torch.equal(found, base(images))
    assert not torch.equal(found, of_base)


@pytest.mark.slow
def test_stopped_and_resumed_it_equals_the_uninterrupted_one(workshop: Make) -> None:
    place = workshop(CONVNET)
    first = place.finish("first", **FAST, norm_stats="adapt")
    whole, parts = go_on(place, "whole", first), go_on(place, "parts", first)
    for _ in whole.steps():
        pass
    steps = parts.steps()
    next(steps)
    parts._save()
    resumed = place.resume("parts")
    assert resumed.trainer.step == 1
    for _ in resumed.steps():
        pass
    assert equal(scores_of(resumed), scores_of(whole))
    assert equal(resumed.trainer.norm_stats(), whole.trainer.norm_stats())
    assert resumed.health.judge(Candidate(resumed.network())) == whole.health.judge(Candidate(whole.network()))
    whole.close()
    assert equal(dict(whole.backbone.model.state_dict()), dict(place.backbone().model.state_dict()))


def test_tensors_come_back_under_their_own_names() -> None:
    start_state = StartState({"a.weight": torch.ones(2)}, {"a/b": torch.zeros(1)}, {"head.weight": torch.ones(3)})
    again = StartState.of_tensors(start_state.tensors())
    assert equal(again.scores, start_state.scores)
    assert equal(again.norm_stats, start_state.norm_stats)
    assert equal(again.head, start_state.head)


def test_scores_of_other_tensors_are_refused(workshop: Make) -> None:
    place = workshop(CONVNET)
    session = place.start("run", steps=1)
    start_state = read_start_state(session.folder, place.backbone())
    start_state.scores.popitem()
    with pytest.raises(CheckpointError, match="scores of other tensors"):
        start_state.put_on(session.trainer, session.features)
    assert Origin.read(RunFolder.open(session.folder.path)) is None


def test_what_stages_teach_is_judged_against_where_it_started_also_while_its_teacher_looks(workshop: Make) -> None:
    """The teacher's look asks for the frozen blocks that all networks share; none are, where a run starts elsewhere."""
    place = workshop(CONVNET)
    late = {"recipe": "default", "teacher": ("stages",), "mask_only": ("late:0.3",), "size": 160}
    first = place.finish("first", **FAST, **late, local_views=0, prototypes=None, queue=None)
    assert density(masks_of(first)) < 1
    assert first.context.cut is not None
    adapted = first.health.embed(first.candidate())
    second = go_on(place, "second", first)
    assert not second.context.starts_at_base
    assert second.context.cut is None
    for found, expected in zip(second.health.base_features, adapted, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
