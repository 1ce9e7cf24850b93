"""Every damaged or hostile file of a run folder gives one CheckpointError and runs nothing."""

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from smn_cli.errors import CheckpointError
from tests.conftest import VIT
from tests.small_runs import Workshop

Make = Callable[..., Workshop]
STATE = Path("checkpoint", "state.pt")


@pytest.mark.slow
@pytest.mark.parametrize("keep", [0.0, 0.001, 0.5, 0.9, 0.9999])
def test_a_truncated_state_is_refused_by_path(workshop: Make, keep: float) -> None:
    place = workshop()
    path = place.start("run", steps=1).folder.path / STATE
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data))])
    with pytest.raises(CheckpointError, match=r"state\.pt"):
        place.resume("run")


@pytest.mark.parametrize(
    "content",
    [{}, [], {"scores": 3}, {"scores": {}}, {"trainer": {}}, {"trainer": 3, "keeper": 3}],
    ids=str,
)
def test_a_state_that_holds_something_else_is_refused(workshop: Make, content: Any) -> None:
    place = workshop()
    session = place.start("run", steps=1)
    torch.save(content, session.folder.path / STATE)
    with pytest.raises(CheckpointError):
        place.resume("run")


def test_a_state_of_another_network_is_refused(workshop: Make) -> None:
    place, other = workshop(), workshop(VIT)
    mine = place.finish("mine", steps=1)
    theirs = other.finish("theirs", steps=1)
    (mine.folder.path / STATE).write_bytes((theirs.folder.path / STATE).read_bytes())
    with pytest.raises(CheckpointError, match="is not what it was when the run saved its state"):
        place.resume("mine")


def test_a_missing_state_says_that_the_run_has_to_start_again(workshop: Make) -> None:
    place = workshop()
    (place.start("run", steps=1).folder.path / STATE).unlink()
    with pytest.raises(CheckpointError, match=r"cannot be read \(No such file or directory\): start the run again"):
        place.resume("run")


def test_a_state_that_would_run_code_is_refused_and_does_not(workshop: Make) -> None:
    place = workshop()
    path = place.start("run", steps=1).folder.path / STATE
    victim = place.runs / "made_by_pickle"

    class Hostile:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(victim),)

    path.write_bytes(pickle.dumps({"scores": {}, "trainer": Hostile()}, protocol=2))
    with pytest.raises(CheckpointError, match="is damaged"):
        place.resume("run")
    assert not victim.exists()


def with_plan(config: dict[str, Any], plan: Any) -> dict[str, Any]:
    return {**config, "plan": plan}


DAMAGES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "list": lambda config: [],
    "of a later version": lambda config: {**config, "schema": "smn.run/9"},
    "no plan": lambda config: {key: value for key, value in config.items() if key != "plan"},
    "plan of nothing": lambda config: with_plan(config, None),
    "plan without steps": lambda config: with_plan(
        config, {key: value for key, value in config["plan"].items() if key != "num_steps"}
    ),
    "plan with more": lambda config: with_plan(config, {**config["plan"], "colour": "red"}),
    "views of a number": lambda config: with_plan(config, {**config["plan"], "views": 3}),
    "no threads": lambda config: {key: value for key, value in config.items() if key != "threads"},
    "threads in words": lambda config: {**config, "threads": "many"},
    "threads of zero": lambda config: {**config, "threads": 0},
}


@pytest.mark.parametrize("damage", list(DAMAGES))
def test_a_config_that_says_something_else_is_refused(workshop: Make, damage: str) -> None:
    place = workshop()
    path = place.start("run", steps=1).folder.path / "config.json"
    path.write_text(json.dumps(DAMAGES[damage](json.loads(path.read_text()))))
    with pytest.raises(CheckpointError):
        place.resume("run")


@pytest.mark.parametrize("keep", [0.0, 0.5, 0.99])
def test_a_truncated_config_is_refused_by_path(workshop: Make, keep: float) -> None:
    place = workshop()
    path = place.start("run", steps=1).folder.path / "config.json"
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data))])
    with pytest.raises(CheckpointError, match=r"config\.json cannot be read"):
        place.resume("run")
