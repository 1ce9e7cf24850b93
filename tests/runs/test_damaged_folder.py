"""A run folder that somebody or something changed: refused by name where a result depends on it, else put up with."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from smn_cli.errors import CheckpointError
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
