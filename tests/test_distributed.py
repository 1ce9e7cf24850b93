"""Two processes under torchrun learn what one does, and go on after one of them dies."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch import distributed as torch_distributed

from smn_cli import distributed
from smn_cli.distributed import Team, is_of_launch, launch_name, launch_names
from smn_cli.errors import UsageError
from smn_cli.runs.run_folder import OBJECTIVE_FILE, RunFolder
from smn_cli.training.session import Session
from tests.commands.conftest import quietly
from tests.conftest import CONVNET
from tests.launched import run_team
from tests.small_runs import Workshop, masks_of, metrics, scores_of

NUM_STEPS, LONG = 8, 100
NO_HEAD = {"recipe": "default", "local_views": None, "prototypes": None, "queue": None}
Make = Callable[..., Workshop]


def adapt(place: Workshop, name: str, *words: str, images: Path | None = None) -> list[str]:
    """`adapt` and its options: the settings of small runs."""
    settings = ["--size", "32", "--batch-size", "8", "--norm-stats", "frozen", "--keep", "last", "--seed", "0"]
    settings += ["--steps", str(NUM_STEPS), "--save-every", "0", "--out", str(place.runs / name)]
    folder = str(images or place.images.good[0].parent)
    return ["adapt", folder, "--arch", place.arch, "--weights", str(place.weights), *settings, *words]


def team(place: Workshop, name: str, *words: str, size: int = 2, images: Path | None = None) -> str:
    """A run of a team of processes, to its end; what was said."""
    return run_team(adapt(place, name, *words, images=images), place.runs / f"{name}.log", size=size)


def launch(place: Workshop, name: str, *words: str, restarts: int = 0) -> "subprocess.Popen[str]":
    """`torchrun -m smn_cli adapt` with two processes."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return start(torchrun, place, name, *words, restarts=restarts)


def start(torchrun: list[str], place: Workshop, name: str, *words: str, restarts: int) -> "subprocess.Popen[str]":
    """A torchrun over the settings of small runs."""
    return subprocess.Popen(
        [*torchrun, "--max-restarts", str(restarts), "-m", "--", "smn_cli", *adapt(place, name, *words)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"},
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
    said = team(place, "calm")
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
    team(place, "two", "--recipe", "paper", "--local-views", "1", "--prototypes", "8", "--queue", "16")
    compare_with_one(place.finish("one", steps=NUM_STEPS, seed=0), place.runs / "two")


@pytest.mark.slow
def test_two_processes_remember_neighbours_as_one_does(workshop: Make) -> None:
    place = workshop(CONVNET)
    team(place, "two", "--teacher", "stages", "--teacher", "last")
    alone = place.finish("one", **NO_HEAD, steps=NUM_STEPS, seed=0, teacher=("stages", "last"))
    compare_with_one(alone, place.runs / "two")
    memories = [session_state["objective"]["memory"] for session_state in (
        alone.trainer.state(), RunFolder.open(place.runs / "two").load_state()["trainer"]
    )]  # fmt: skip
    torch.testing.assert_close(*memories, rtol=0, atol=1e-2)


@pytest.mark.slow
def test_two_processes_keep_what_the_first_blocks_give_as_one_does(workshop: Make) -> None:
    place = workshop(CONVNET)
    team(place, "two", "--teacher", "stages", "--steps", "12", "--cache-trunk", "1GB")
    alone = place.finish("one", **NO_HEAD, steps=12, seed=0, teacher=("stages",), cache_trunk="1GB")
    assert alone.plan.cached_views == RunFolder.open(place.runs / "two").read_config()["plan"]["cached_views"] == 2
    compare_with_one(alone, place.runs / "two")


@pytest.mark.slow
def test_two_processes_go_on_from_a_mask_with_labels_as_one_does(workshop: Make, labeled_folder: Path) -> None:
    place = workshop()
    start = place.finish("start", **NO_HEAD, steps=4, seed=0, lr_scores=0.3).folder.path
    words = ["--labels", "folders", "--start", str(start)]
    team(place, "alone", *words, size=1, images=labeled_folder / "train")
    team(place, "two", *words, images=labeled_folder / "train")
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


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the processes of torchrun through /proc")
@pytest.mark.long
def test_two_torchruns_of_which_one_is_killed_and_started_again_end_in_the_bytes_of_two_that_are_left_alone(
    workshop: Make,
) -> None:
    place = workshop()
    ports = free_ports(2)
    calm = [launch_node(place, "calm", ports[0]) for _ in range(2)]
    for node in calm:
        finish(node)

    first = launch_node(place, "disturbed", ports[1])
    second = launch_node(place, "disturbed", ports[1])
    wait_for_steps(first, place.runs / "disturbed" / "metrics.jsonl")
    for process in [second.pid, *children_of(second)]:  # as when a machine goes down
        os.kill(process, signal.SIGKILL)
    second.communicate()
    assert 0 < len(metrics_in(place.runs / "disturbed")) < LONG
    again = launch_node(place, "disturbed", ports[1])
    for node in (first, again):
        finish(node)
    expected, after = scores_in(place.runs / "calm"), scores_in(place.runs / "disturbed")
    assert all(torch.equal(expected[name], after[name]) for name in expected)
    assert metrics_in(place.runs / "calm") == metrics_in(place.runs / "disturbed")
    files = [place.runs / f"{name}.safetensors" for name in ("calm", "disturbed")]
    for file in files:
        quietly("pack", file.with_suffix(""), "--out", file)
    assert files[0].read_bytes() == files[1].read_bytes()


def launch_node(place: Workshop, name: str, port: int) -> "subprocess.Popen[str]":
    """One of two torchruns, each of a machine with one process, that meet at a port; the first keeps the store."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1"]
    meeting = ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{port}", "--rdzv-id", name]
    meeting += ["--local-addr", "127.0.0.1"]
    node = start([*torchrun, *meeting], place, name, "--steps", str(LONG), restarts=3)
    deadline = time.monotonic() + 60
    while not is_listening(port):  # else the second could be the one that keeps the store
        assert node.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return node


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens at."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def is_listening(port: int) -> bool:
    """Without connecting, which no test may."""
    wanted = f":{port:04X}"
    tables = [path.read_text() for name in ("tcp", "tcp6") if (path := Path("/proc/net", name)).exists()]
    rows = [line.split() for table in tables for line in table.splitlines()[1:]]
    return any(row[1].endswith(wanted) and row[3] == "0A" for row in rows)


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


def wait_for_steps(agent: "subprocess.Popen[str]", log: Path) -> None:
    """Until a few steps are logged."""
    deadline = time.monotonic() + 90
    while not log.exists() or len(log.read_text().splitlines()) < 3:
        assert agent.poll() is None
        assert time.monotonic() < deadline, "no step within 90 seconds"
        time.sleep(0.01)


def kill_one(agent: "subprocess.Popen[str]", *, once: Path) -> None:
    """kill -9 the second process as soon as a few steps are logged."""
    wait_for_steps(agent, once)
    os.kill(children_of(agent)[-1], signal.SIGKILL)


def children_of(agent: "subprocess.Popen[str]") -> list[int]:
    """Processes that a torchrun started."""
    return [int(child) for child in Path(f"/proc/{agent.pid}/task/{agent.pid}/children").read_text().split()]


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


def test_processes_agree_on_a_word_of_their_own_though_dead_ones_left_theirs_in_the_store() -> None:
    store = torch_distributed.HashStore()  # type: ignore[attr-defined]
    store.set("question of 1", "of one who died before it was answered")
    with ThreadPoolExecutor(3) as pool:
        attempts = []
        for _ in range(2):
            asked = [pool.submit(distributed._agreed_word, store, rank, 3) for rank in (0, 2, 1)]
            attempts.append({each.result(timeout=20) for each in asked})
    assert [len(words) for words in attempts] == [1, 1]
    assert attempts[0] != attempts[1]


def test_a_run_is_known_to_each_of_the_torchruns_that_started_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "job 7")
    own = launch_name()
    assert is_of_launch(launch_names(Team()))
    assert is_of_launch(f"other 1 job 7 | {own}")
    assert not is_of_launch(f"other 1 job 7 | {own}0")
    assert not is_of_launch("")
