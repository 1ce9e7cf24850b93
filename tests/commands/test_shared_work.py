"""smn embed and smn eval under torchrun: the bytes and the figures of one process, written by the first."""

import json
import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.commands.conftest import Road, quietly
from tests.conftest import CONVNET, Outcome, write_images
from tests.launched import run_team

SIZE = ["--size", "160"]  # images so large come in batches of 32


def torchrun(*words: object) -> str:
    """A command under torchrun, with two processes; what it said."""
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*start, "-m", "--", "smn_cli", *map(str, words)],
        capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine tars of twenty images, one of them unreadable."""
    loose, folder = (tmp_path_factory.mktemp(name) for name in ("loose", "shards"))
    write_images(loose, 180)
    (loose / "077.png").write_bytes(b"no image")
    images = sorted(loose.iterdir())
    for number in range(9):
        with tarfile.open(folder / f"{number}.tar", "w") as tar:
            for path in images[20 * number : 20 * number + 20]:
                tar.add(path, path.name)
    return folder


@pytest.mark.slow
def test_two_processes_write_the_file_of_one(
    shards: Path, tmp_path: Path, run_cli: Callable[..., Outcome], weights_file: Callable[[str], Path]
) -> None:
    words = ["embed", shards, "--arch", CONVNET, "--weights", weights_file(CONVNET), *SIZE, "--l2", "--json"]
    one, two = tmp_path / "one.npy", tmp_path / "two.npy"
    torch.set_num_threads(1)
    assert run_cli(*words, tmp_path / "one.json", "--out", one).code == 0
    said = run_team([*words, tmp_path / "two.json", "--out", two], tmp_path / "log.txt")
    assert said.count(f"{two}: ") == 1  # only the first process talks
    assert two.read_bytes() == one.read_bytes()
    for name in (".bad_images.txt", ".paths.txt"):
        assert two.with_suffix(name).read_bytes() == one.with_suffix(name).read_bytes()
    alone, shared = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("one", "two"))
    assert [entry["path"] for entry in shared["bad"]] == [str(shards / "3.tar" / "077.png")]
    assert {**shared, "file": "", "paths": ""} == {**alone, "file": "", "paths": ""}
    rows = np.load(two)
    assert len(np.unique(rows, axis=0)) == len(rows) == 179  # no row is another's, none is empty


@pytest.mark.slow
def test_two_processes_score_as_one_does_and_find_features_in_the_cache(
    road: Road, tmp_path: Path, run_cli: Callable[..., Outcome]
) -> None:
    labeled = tmp_path / "labeled"
    for label, name in enumerate(("one", "other")):  # nothing tells them apart, so scores hang on every feature
        write_images(labeled / "train" / name, 60, seed=label)
        write_images(labeled / "test" / name, 20, seed=10 + label)
    words = ["eval", labeled, "--adapter", road.adapter, "--weights", road.weights, *SIZE, "--knn", "--linear"]
    words += ["--controls", "--label-fraction", "1,0.5", "--repeats", "2", "--json"]
    torch.set_num_threads(1)
    assert run_cli(*words, tmp_path / "one.json", "--no-cache").code == 0
    time.sleep(2.1)  # images changed just now have no key
    said = [torchrun(*words, tmp_path / "two.json"), run_team([*words, tmp_path / "again.json"], tmp_path / "log.txt")]
    assert ["were in the cache" in each for each in said] == [False, True]
    alone, shared, again = (
        without_times(json.loads((tmp_path / f"{name}.json").read_text())) for name in ("one", "two", "again")
    )
    assert shared == alone == again
    assert 0 < shared["base"]["linear"]["top1"] < 1


@pytest.mark.slow
def test_two_processes_score_a_cascade_as_one_does(
    road: Road, tmp_path: Path, labeled_folder: Path, run_cli: Callable[..., Outcome]
) -> None:
    out = tmp_path / "cascade"
    quietly("cascade", "--run", road.run, "--out", out, "--experts", 2, "--steps", 2, "--device", "cpu")
    words = ["eval", labeled_folder, "--adapter", out / "cascade.safetensors", "--weights", road.weights, *SIZE]
    words += ["--json"]
    torch.set_num_threads(1)
    assert run_cli(*words, tmp_path / "one.json").code == 0
    run_team([*words, tmp_path / "two.json", "--no-cache"], tmp_path / "log.txt")
    alone, shared = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("one", "two"))
    assert shared == alone


def without_times(content: Any) -> Any:
    """The same without what a clock told."""
    if isinstance(content, dict):
        return {key: without_times(value) for key, value in content.items() if "ms" not in key and "milli" not in key}
    return content
