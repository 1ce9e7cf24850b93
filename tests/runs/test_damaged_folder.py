"""A run folder that somebody or something changed: refused by name where a result depends on it, else put up with."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from smn_cli.errors import CheckpointError
from smn_cli.runs.checked_files import fitting
from smn_cli.runs.pack import pack_run
from smn_cli.runs.run_folder import RunFolder
from tests.conftest import CONVNET, Outcome
from tests.small_runs import Workshop

Run = Callable[..., Outcome]
SHORT: dict[str, Any] = {"steps": 3, "batch_size": 8, "size": 32, "teacher_size": 48, "keep": "last"}


@pytest.fixture
def run(workshop: Callable[..., Workshop]) -> Path:
    place = workshop(CONVNET)
    session = place.start("run", **SHORT)
    list(session.steps())
    session.close()
    return session.folder.path


def flip(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("name", ["images.txt", "config.json", "checkpoint/objective.safetensors"])
def test_a_changed_bit_is_found_by_whoever_reads_the_state(run: Path, name: str) -> None:
    folder = RunFolder.open(run)
    folder.load_state()
    text = (run / name).read_bytes()
    flip(run / name, text.index(b"smn") + 1 if name == "config.json" else -2)
    with pytest.raises(CheckpointError, match=f"{name} is not what it was when the run saved its state"):
        folder.load_state()


def test_a_free_field_of_the_settings_is_no_exception(run: Path) -> None:
    config = json.loads((run / "config.json").read_text())
    config["images"]["found"] = 7
    (run / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"config\.json is not what it was"):
        RunFolder.open(run).load_state()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("weights", 1.5),
        ("val", [["w", 1]]),
        ("arch", {}),
        ("plan", []),
        ("classes", "ab"),
        ("teachers", None),
        ("tag", 0),
    ],
)
def test_settings_of_other_kinds_are_refused_by_name(run: Path, name: str, value: object) -> None:
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({**config, name: value}))
    with pytest.raises(CheckpointError, match=rf"config\.json: {name} is .*, expected a .*: it was edited"):
        RunFolder.open(run).read_config()


def test_an_empty_list_of_images(run: Path) -> None:
    (run / "images.txt").write_text("")
    with pytest.raises(CheckpointError, match=r"images\.txt lists no image"):
        RunFolder.open(run).read_images()


@pytest.mark.parametrize(
    "damage", [b"\xff\xfe\n", b'{"loss": 1}\n', b"[1]\n", b'{"step": "x"}\n', b'{"step": 1, "lo', b"[" * 9999]
)
def test_a_damaged_log_stops_nothing(run: Path, damage: bytes) -> None:
    folder = RunFolder.open(run)
    before = folder.read_metrics()
    with (run / "metrics.jsonl").open("ab") as file:
        file.write(damage)
    assert folder.read_metrics() == before
    folder.keep_metrics_until(2)
    assert {record["step"] for record in folder.read_metrics()} == {1, 2}


def test_a_log_that_is_gone(run: Path) -> None:
    (run / "metrics.jsonl").unlink()
    folder = RunFolder.open(run)
    folder.keep_metrics_until(2)
    assert folder.read_metrics() == []


def sealed(run: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Write a changed state with a checksum that is right."""
    folder = RunFolder.open(run)
    state = folder.load_state()
    change(state)
    folder.save_state(state)


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state["trainer"].update(norm_stats=[[]]),
        lambda state: state["trainer"].update(step=99),
        lambda state: state["trainer"].update(step="x"),
        lambda state: state["trainer"].update(objective=3),
        lambda state: state["trainer"]["optimizer"]["state"][0].update(momentum_buffer=torch.ones(2)),
        lambda state: state["trainer"]["trained"].update({next(iter(state["trainer"]["trained"])): torch.ones(1)}),
        lambda state: state.update(keeper={"best": 0}),
        lambda state: state.pop("keeper"),
        lambda state: state["keeper"].update(alarms={}),
        lambda state: state["keeper"].update(alarms=[3]),
        lambda state: state["keeper"].update(best_gain="0"),
        lambda state: state["keeper"].update(last_gain=float("nan")),
        lambda state: next(iter(state["trainer"]["trained"].values())).fill_(torch.nan),
        lambda state: state["keeper"].update(tensors=[]),
        lambda state: state["keeper"].update(head={"weight": 1}),
    ],
)
def test_a_state_that_was_sealed_over_odd_values_is_refused(
    run: Path, workshop: Callable[..., Workshop], change: Callable[[dict[str, Any]], object]
) -> None:
    sealed(run, change)
    with pytest.raises(CheckpointError, match=r"does not fit its own settings|is incomplete"):
        workshop(CONVNET).resume("run")


def test_masks_of_other_shapes_are_not_packed(run: Path, workshop: Callable[..., Workshop]) -> None:
    sealed(run, lambda state: state["trainer"].update(norm_stats=[[]]))
    with pytest.raises(CheckpointError, match="does not fit its own settings"):
        pack_run(RunFolder.open(run), workshop(CONVNET).backbone())


@pytest.mark.parametrize(
    "change",
    [
        lambda state: next(iter(state["trainer"]["trained"].values())).fill_(-torch.inf),
        lambda state: next(iter(state["trainer"]["trained"].values())).fill_(torch.nan),
        lambda state: state["trainer"].update(trained={"a": 3}),
        lambda state: state["keeper"].update(last_gain=float("nan")),
    ],
)
def test_scores_and_gains_that_are_none_are_not_packed(
    run: Path, workshop: Callable[..., Workshop], change: Callable[[dict[str, Any]], object]
) -> None:
    sealed(run, change)
    with pytest.raises(CheckpointError, match=r"is incomplete|keeps none of the weights|does not fit its own settings"):
        pack_run(RunFolder.open(run), workshop(CONVNET).backbone())


def test_tensors_whose_header_was_sealed_anew_are_refused(run: Path) -> None:
    path = run / "checkpoint" / "objective.safetensors"
    body = bytearray(path.read_bytes()[:-32])
    body[9] = 0xFF
    path.write_bytes(body + hashlib.sha256(body).digest())
    with pytest.raises(CheckpointError, match=r"objective\.safetensors is damaged"):
        RunFolder.open(run).load_tensors("objective.safetensors")


def test_a_want_of_memory_is_not_told_as_damage(tmp_path: Path) -> None:
    for error in (torch.OutOfMemoryError("x"), RuntimeError("DataLoader worker (pid 3) is killed by signal: Killed.")):
        with pytest.raises(type(error)), fitting(tmp_path):
            raise error
