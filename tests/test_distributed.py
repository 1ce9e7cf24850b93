"""Two processes under torchrun learn what one does, and go on after one of them dies."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from smn_cli.distributed import Team
from smn_cli.errors import UsageError
from smn_cli.runs.run_folder import OBJECTIVE_FILE, RunFolder
from smn_cli.training.session import Session
from tests.conftest import CONVNET
from tests.small_runs import Workshop, masks_of, metrics, scores_of

NUM_STEPS = 8
NO_HEAD = {"recipe": "default", "local_views": None, "prototypes": None, "queue": None}
Make = Callable[..., Workshop]


def launch(
    place: Workshop, name: str, *words: str, restarts: int = 0, processes: int = 2, images: Path | None = None
) -> "subprocess.Popen[str]":
    """`torchrun -m smn_cli adapt` with two processes and the settings of small runs."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    adapt = ["-m", "--", "smn_cli", "adapt", str(images or place.images.good[0].parent), "--arch", place.arch]
    settings = ["--size", "32", "--batch-size", "8", "--norm-stats", "frozen", "--keep", "last", "--seed", "0"]
    return subprocess.Popen(
        [*torchrun, "--max-restarts", str(restarts), *adapt, "--weights", str(place.weights), *settings,
         "--steps", str(NUM_STEPS), "--save-every", "0", "--out", str(place.runs / name), *words],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def finish(process: "subprocess.Popen[str]") -> str:
    """Wait for the end; what was said."""
    said, complaints = process.communicate(timeout=240)
    assert process.returncode == 0, complaints
    return said + complaints


def scores_in(folder: Path) -> dict[str, Tensor]:
    return dict(RunFolder.open(folder).load_state()["trainer"]["trained"])


def num_different_bits(first: dict[str, Tensor], second: dict[str, Tensor]) -> int:
    assert first.keys() == second.keys()
    return sum(int(((first[name] > 0) != (second[name] > 0)).sum()) for name in first)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the processes of torchrun through /proc")
def test_two_processes_learn_the_masks_of_one_and_the_same_if_one_of_them_dies(workshop: Make) -> None:
    place = workshop()
    said = finish(launch(place, "calm"))
    assert said.count("kept step") == 1  # only the first process talks
    calm = place.runs / "calm"
    compare_with_one(place.finish("one", **NO_HEAD, steps=NUM_STEPS, seed=0), calm)

    disturbed = launch(place, "disturbed", restarts=3)
    kill_one(disturbed, once=place.runs / "disturbed" / "metrics.jsonl")
    finish(disturbed)
    expected, after = scores_in(calm), scores_in(place.runs / "disturbed")
    assert all(torch.equal(expected[name], after[name]) for name in expected)
    assert metrics_in(calm) == metrics_in(place.runs / "disturbed")


@pytest.mark.slow
def test_two_processes_make_the_codes_of_one_from_the_whole_batch_and_queue(workshop: Make) -> None:
    place = workshop()
    finish(launch(place, "two", "--recipe", "paper", "--local-views", "1", "--prototypes", "8", "--queue", "16"))
    compare_with_one(place.finish("one", steps=NUM_STEPS, seed=0), place.runs / "two")


@pytest.mark.slow
def test_two_processes_remember_neighbours_as_one_does(workshop: Make) -> None:
    place = workshop(CONVNET)
    finish(launch(place, "two", "--teacher", "stages", "--teacher", "last"))
    alone = place.finish("one", **NO_HEAD, steps=NUM_STEPS, seed=0, teacher=("stages", "last"))
    compare_with_one(alone, place.runs / "two")
    memories = [session_state["objective"]["memory"] for session_state in (
        alone.trainer.state(), RunFolder.open(place.runs / "two").load_state()["trainer"]
    )]  # fmt: skip
    torch.testing.assert_close(*memories, rtol=0, atol=1e-2)


@pytest.mark.slow
def test_two_processes_keep_what_the_first_blocks_give_as_one_does(workshop: Make) -> None:
    place = workshop(CONVNET)
    finish(launch(place, "two", "--teacher", "stages", "--steps", "12", "--cache-trunk", "1GB"))
    alone = place.finish("one", **NO_HEAD, steps=12, seed=0, teacher=("stages",), cache_trunk="1GB")
    assert alone.plan.cached_views == RunFolder.open(place.runs / "two").read_config()["plan"]["cached_views"] == 2
    compare_with_one(alone, place.runs / "two")


@pytest.mark.slow
def test_two_processes_go_on_from_a_mask_with_labels_as_one_does(workshop: Make, labeled_folder: Path) -> None:
    place = workshop()
    start = place.finish("start", **NO_HEAD, steps=4, seed=0, lr_scores=0.3).folder.path
    words = ["--labels", "folders", "--start", str(start)]
    finish(launch(place, "alone", *words, processes=1, images=labeled_folder / "train"))
    finish(launch(place, "two", *words, images=labeled_folder / "train"))
    alone, two = (RunFolder.open(place.runs / name) for name in ("alone", "two"))
    for name in ("weight", "start_weight"):  # what the objective found before the first step
        expected, found = (folder.load_tensors(OBJECTIVE_FILE)[name] for folder in (alone, two))
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    expected, found = (folder.load_state()["trainer"] for folder in (alone, two))
    assert num_different_bits(expected["trained"], found["trained"]) < 0.001 * sum(
        scores.numel() for scores in found["trained"].values()
    )
    classifiers = [state["objective"]["classifier"]["weight"] for state in (expected, found)]
    torch.testing.assert_close(*classifiers, rtol=1e-2, atol=1e-3)


def compare_with_one(alone: Session, folder: Path) -> None:
    """The same batches, summed in another order: losses agree but for rounding, masks but for scores at the edge."""
    losses, others = ([line["loss"] for line in lines] for lines in (metrics(alone), metrics_in(folder)))
    assert others == pytest.approx(losses, rel=1e-4)
    masks = masks_of(alone)
    assert not all(bool(mask.all()) for mask in masks.values())
    num_weights = sum(mask.numel() for mask in masks.values())
    assert num_different_bits(scores_of(alone), scores_in(folder)) <= 1e-4 * num_weights


def metrics_in(path: Path) -> list[dict[str, float]]:
    lines = (path / "metrics.jsonl").read_text().splitlines()
    return [line for line in map(json.loads, lines) if "loss" in line]


def kill_one(agent: "subprocess.Popen[str]", *, once: Path) -> None:
    """kill -9 the second process as soon as a few steps are logged."""
    deadline = time.monotonic() + 90
    while not once.exists() or len(once.read_text().splitlines()) < 3:
        assert agent.poll() is None
        assert time.monotonic() < deadline, "no step within 90 seconds"
        time.sleep(0.01)
    children = Path(f"/proc/{agent.pid}/task/{agent.pid}/children").read_text().split()
    os.kill(int(children[-1]), signal.SIGKILL)


def test_work_that_cannot_be_shared_out_is_refused() -> None:
    with pytest.raises(UsageError, match="`batch_size` 64 cannot be shared by 3 processes"):
        Team(0, 3).check_shares(64, num_judging=100)
    with pytest.raises(UsageError, match="4 processes, but 3 held-out images"):
        Team(0, 4).check_shares(64, num_judging=3)
    Team(0, 4).check_shares(64, num_judging=4)


def test_shares_are_disjoint_and_complete() -> None:
    shares = [Team(rank, 3).own(list(map(Path, "abcdefgh"))) for rank in range(3)]
    assert sorted(path for share in shares for path in share) == list(map(Path, "abcdefgh"))
    assert [path for triple in zip(*shares, strict=False) for path in triple] == list(map(Path, "abcdef"))
