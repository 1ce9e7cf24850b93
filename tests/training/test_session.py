"""A run is reproducible, survives being stopped, and refuses folders that are taken."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from smn_cli.backbones.loading import load_backbone
from smn_cli.config.options import AdaptOptions
from smn_cli.errors import CheckpointError, DataError, Interrupted, MismatchError, UsageError
from smn_cli.training.run_context import Execution
from smn_cli.training.session import Session, StopSignal
from tests.conftest import CONVNET, VIT, random_weights
from tests.small_runs import Workshop, digests, equal, log_of, metrics, scores_of

Make = Callable[..., Workshop]
STATE = Path("checkpoint", "state.pt")
RECIPES_UNDER_TEST = ["paper", AdaptOptions().recipe]


def stop_after(session: Session, num_steps: int) -> None:
    """Ask for a stop while step `num_steps` is at hand, as a signal handler would."""
    stop = StopSignal()
    steps = session.steps(stop)
    for _ in range(num_steps - 1):
        next(steps)
    stop.requested = True
    next(steps)
    with pytest.raises(Interrupted, match=rf"after step {session.trainer.step} of .* `resume` and `out`"):
        next(steps)
    assert session.trainer.step == len(metrics(session))


def finish(session: Session) -> None:
    for _ in session.steps():
        pass


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES_UNDER_TEST)
@pytest.mark.parametrize(("arch", "norm_stats"), [(CONVNET, "adapt"), (VIT, "frozen")])
def test_interrupted_and_resumed_runs_equal_the_uninterrupted_one_bit_for_bit(
    workshop: Make, arch: str, norm_stats: str, recipe: str
) -> None:
    place = workshop(arch)
    options: dict[str, Any] = {"steps": 10, "norm_stats": norm_stats, "recipe": recipe}
    options |= {"queue": 16 if recipe == "paper" else None}
    whole = place.finish("whole", **options)
    stop_after(place.start("parts", **options), 2)  # within an epoch
    stop_after(place.resume("parts"), 5)  # with the queue full
    resumed = place.resume("parts")
    assert resumed.trainer.step == 7
    finish(resumed)
    assert equal(scores_of(resumed), scores_of(whole))
    assert digests(resumed.backbone.model).keys() == digests(whole.backbone.model).keys()
    assert equal(resumed.trainer.norm_stats(), whole.trainer.norm_stats())
    assert log_of(resumed) == log_of(whole)


def test_a_stop_asked_for_in_the_last_step_is_no_interruption(workshop: Make) -> None:
    session, stop = workshop().start("run", steps=2), StopSignal()
    steps = session.steps(stop)
    next(steps)
    steps_left = []
    for report in steps:
        stop.requested = True  # too late: the last step is done
        steps_left.append(report.step)
    assert steps_left == [2]


def test_steps_after_the_last_checkpoint_are_taken_again_and_logged_once(workshop: Make) -> None:
    place = workshop()
    whole = place.finish("whole", steps=6)
    session = place.start("killed", steps=6)
    stop_after(session, 2)
    lost = place.resume("killed").steps()
    next(lost)
    next(lost)  # two steps are logged that no checkpoint holds
    assert [line["step"] for line in metrics(session)] == [1, 2, 3, 4]
    path = session.folder.path / "metrics.jsonl"
    path.write_text(path.read_text() + '{"step": 5, "lo')  # and a line that a kill cut short
    resumed = place.resume("killed")
    assert [line["step"] for line in metrics(resumed)] == [1, 2]
    finish(resumed)
    assert log_of(resumed) == log_of(whole)
    assert equal(scores_of(resumed), scores_of(whole))


def test_resuming_a_finished_run_takes_no_step_and_changes_no_file(workshop: Make) -> None:
    place = workshop()
    done = place.finish("run", steps=2)
    before = {path: path.read_bytes() for path in done.folder.path.rglob("*") if path.is_file()}
    again = place.resume("run")
    assert list(again.steps()) == []
    assert equal(scores_of(again), scores_of(done))
    assert {path: path.read_bytes() for path in done.folder.path.rglob("*") if path.is_file()} == before


def test_a_run_that_never_took_a_step_resumes_from_its_start(workshop: Make) -> None:
    place = workshop()
    whole = place.finish("whole", steps=3)
    place.start("idle", steps=3)
    resumed = place.resume("idle")
    assert resumed.trainer.step == 0
    finish(resumed)
    assert equal(scores_of(resumed), scores_of(whole))


def test_a_run_folder_is_overwritten_only_when_asked(workshop: Make) -> None:
    place = workshop()
    first = place.finish("run", steps=2)
    before = (first.folder.path / STATE).read_bytes()
    with pytest.raises(UsageError, match="exists: `resume` continues it, `overwrite` replaces it"):
        place.start("run", steps=2)
    assert (first.folder.path / STATE).read_bytes() == before
    replaced = place.start("run", steps=5, overwrite=True)
    assert not (replaced.folder.path / "metrics.jsonl").exists()
    assert place.resume("run").plan.num_steps == 5


def test_a_folder_that_is_no_run_is_never_overwritten(workshop: Make) -> None:
    place = workshop()
    (place.runs / "mine").mkdir()
    (place.runs / "mine" / "thesis.txt").write_text("dear")
    with pytest.raises(UsageError, match="is not a run folder of smn"):
        place.start("mine", steps=2, overwrite=True)
    assert (place.runs / "mine" / "thesis.txt").read_text() == "dear"
    (place.runs / "empty").mkdir()
    assert place.start("empty", steps=2).trainer.step == 0


def test_fewer_images_than_a_batch_make_no_folder(workshop: Make) -> None:
    place = workshop()
    with pytest.raises(DataError, match="24 usable images are fewer than one batch of 25"):
        place.start("run", batch_size=25)
    assert not (place.runs / "run").exists()


def test_a_run_does_not_resume_over_another_base(workshop: Make) -> None:
    place = workshop()
    place.finish("run", steps=1)
    other = load_backbone(CONVNET, place.weights)
    with torch.no_grad():
        other.model.get_parameter("conv_head.weight").view(-1)[0] += 1e-3
    with pytest.raises(MismatchError, match="not the one the run was started with"):
        Session.resume(place.runs / "run", other)


def test_resuming_where_no_run_is_says_so(workshop: Make) -> None:
    place = workshop()
    with pytest.raises(CheckpointError, match=r"is not a run folder: expected config\.json"):
        place.resume("nowhere")


def test_the_state_is_saved_every_so_often_without_being_asked(workshop: Make) -> None:
    place = workshop()
    steps = place.start("often", steps=5, save_every_s=0.0).steps()
    next(steps)
    next(steps)
    assert place.resume("often").trainer.step == 2
    rare = place.start("rare", steps=5, save_every_s=3600.0).steps()
    next(rare)
    next(rare)
    assert place.resume("rare").trainer.step == 0


def test_config_and_images_say_what_the_run_was_made_of(workshop: Make) -> None:
    place = workshop()
    session = place.start("run", steps=4, seed=9)
    config = json.loads((session.folder.path / "config.json").read_text())
    assert (config["schema"], config["arch"], config["images"]) == (
        "smn.run/1",
        CONVNET,
        {"found": 24, "good": 24, "bad": 0},
    )
    assert (config["plan"]["seed"], config["plan"]["num_steps"]) == (9, 4)
    assert session.folder.read_images() == place.images.good


def test_starting_a_run_writes_nothing_into_the_weights(workshop: Make) -> None:
    place = workshop()
    session = place.finish("run", steps=2)
    expected = random_weights(CONVNET)
    state = session.backbone.model.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in state.items())
    assert Execution().save_every_s == 60.0
