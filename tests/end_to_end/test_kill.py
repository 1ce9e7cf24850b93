"""A process that is killed outright leaves a run that ends as if it had lived."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import CONVNET
from tests.small_runs import Workshop, equal, log_of, metrics, scores_of

pytestmark = pytest.mark.slow

NUM_STEPS = 30
REPOSITORY = Path(__file__).parents[2]


PAPER = {"--recipe": "paper", "--local-views": 1, "--prototypes": 8, "--queue": 16}
CACHED = {"--teacher": "stages", "--keep": "last", "--cache-trunk": "1GB"}


def words(place: Workshop, out: Path, settings: dict[str, Any] = PAPER) -> list[str]:
    images = str(place.images.good[0].parent)
    options = {
        "--arch": CONVNET, "--weights": place.weights, "--out": out, "--steps": NUM_STEPS, "--size": 32,
        "--batch-size": 8, "--workers": 0, "--device": "cpu", "--save-every": 0, "--precision": "fp32", **settings,
    }  # fmt: skip
    return ["adapt", images, *(str(word) for pair in options.items() for word in pair)]


def start_process(arguments: list[str], log: Path) -> "subprocess.Popen[bytes]":
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive", "PYTHONPATH": str(REPOSITORY)}
    with log.open("wb") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "smn_cli", *arguments], env=environment, stderr=file, stdout=file
        )


def wait_for_lines(path: Path, num_lines: int, process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Until a run has logged that many steps; the process must not end before."""
    give_up = time.monotonic() + 120
    while not path.exists() or path.read_bytes().count(b"\n") < num_lines:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < give_up, log.read_text()
        time.sleep(0.005)


@pytest.mark.parametrize("settings", [PAPER, CACHED])
def test_kill_9_in_the_middle_and_resume_give_the_scores_of_a_whole_run(
    workshop: Callable[..., Workshop], run_cli: Callable[..., Any], tmp_path: Path, settings: dict[str, Any]
) -> None:
    place = workshop()
    log = tmp_path / "log.txt"
    process = start_process(words(place, tmp_path / "killed", settings), log)
    try:
        wait_for_lines(tmp_path / "killed" / "metrics.jsonl", 7, process, log)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert process.returncode == -signal.SIGKILL
    interrupted_at = place.resume("killed").trainer.step
    assert 5 <= interrupted_at < NUM_STEPS

    assert run_cli("adapt", "--resume", "--out", tmp_path / "killed", "--workers", 0, "--device", "cpu").code == 0
    assert run_cli(*words(place, tmp_path / "whole", settings)).code == 0
    killed, whole = place.resume("killed"), place.resume("whole")
    assert killed.trainer.step == whole.trainer.step == NUM_STEPS
    assert bool(whole.plan.cached_views) == (settings is CACHED)
    assert equal(scores_of(killed), scores_of(whole))
    assert equal(killed.trainer.norm_stats(), whole.trainer.norm_stats())
    assert log_of(killed) == log_of(whole)


def test_a_terminated_process_saves_says_how_to_go_on_and_exits_with_130(
    workshop: Callable[..., Workshop], tmp_path: Path
) -> None:
    place = workshop()
    log = tmp_path / "log.txt"
    arguments = words(place, tmp_path / "run")
    arguments[arguments.index("--save-every") + 1] = "3600"
    arguments[arguments.index("--steps") + 1] = "2000"
    process = start_process(arguments, log)
    try:
        wait_for_lines(tmp_path / "run" / "metrics.jsonl", 3, process, log)
        process.send_signal(signal.SIGTERM)
        code = process.wait(60)
    finally:
        process.kill()
        process.wait()
    session = place.resume("run")
    assert code == 130
    assert f"stopped after step {session.trainer.step} of 2000" in log.read_text()
    assert "continue with --resume and --out" in log.read_text()
    assert session.trainer.step == len(metrics(session)) >= 3
