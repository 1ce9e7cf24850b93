"""smn data on the command line: writes once, knows its own work, and what it writes is fit for smn eval."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from smn_cli.data.labels.eval_split import load_labeled_split
from tests.conftest import Outcome
from tests.datasets.downloads import DOWNLOADS

Run = Callable[..., Outcome]


def test_a_set_is_written_once_and_fit_for_evaluation(
    run_cli: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, out = tmp_path / "root", tmp_path / "pets"
    DOWNLOADS["oxfordiiitpet"](root, monkeypatch, "oxfordiiitpet")
    first = run_cli("data", "pets", out, "--root", root, "--json", "-")
    assert first.code == 0, first.err
    assert json.loads(first.out) == {
        "schema": "smn.data/1",
        "dir": str(out),
        "name": "oxfordiiitpet",
        "seed": None,
        "train": 4,
        "test": 2,
        "classes": ["Abyssinian", "Beagle"],
        "split": "official split, as in the paper",
        "licence": "CC BY-SA 4.0",
        "url": "https://www.robots.ox.ac.uk/~vgg/data/pets/",
    }
    split = load_labeled_split(out)
    assert (split.classes, len(split.train_paths), len(split.test_paths)) == (["Abyssinian", "Beagle"], 4, 2)
    stamps = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    again = run_cli("data", "oxfordiiitpet", out, "--root", tmp_path / "nowhere", "--json", "-")
    assert (again.code, again.out) == (0, first.out)
    assert "is there already, complete" in again.err
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == stamps
    other = run_cli("data", "dtd", out)
    assert (other.code, "holds oxfordiiitpet with another split" in other.err) == (2, True)


def test_a_made_split_is_said_with_its_seed(run_cli: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    DOWNLOADS["eurosat"](tmp_path / "root", monkeypatch, "eurosat")
    outcome = run_cli("data", "eurosat", tmp_path / "out", "--root", tmp_path / "root", "--seed", 3)
    assert outcome.code == 0, outcome.err
    assert "14 training, 6 test images, 2 classes" in outcome.out
    assert "split: no official split: 30 % of each class" in outcome.out
    assert "seed 3" in outcome.out
    assert run_cli("data", "eurosat", tmp_path / "out", "--root", tmp_path / "root").code == 2


def test_coops_split_takes_the_place_of_ours(run_cli: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    DOWNLOADS["dtd"](tmp_path / "root", monkeypatch, "dtd")
    entries = [[f"{label}/{label}_{n:04d}.jpg", 0, label] for n in (0, 1, 2) for label in ("banded", "zigzagged")]
    parts = {"train": entries[4:], "val": entries[:1], "test": entries[1:3]}
    (tmp_path / "split_zhou_DescribableTextures.json").write_text(json.dumps(parts))
    words = ["data", "dtd", tmp_path / "out", "--root", tmp_path / "root"]
    outcome = run_cli(*words, "--split", tmp_path / "split_zhou_DescribableTextures.json")
    assert outcome.code == 0, outcome.err
    assert "split: split_zhou_DescribableTextures.json, train and val merged" in outcome.out
    found = [sorted(path.name for path in (tmp_path / "out" / half).glob("*/*")) for half in ("train", "test")]
    assert found == [
        ["banded_0000.jpg", "banded_0002.jpg", "zigzagged_0002.jpg"],
        ["banded_0001.jpg", "zigzagged_0000.jpg"],
    ]
    again = run_cli(*words)
    assert (again.code, "holds dtd with another split" in again.err) == (2, True)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["cifer10", "out"], 2, "did you mean cifar10"),
        (["dtd", "no/such/out"], 2, "does not exist"),
        (["dtd", "out", "--root", "root"], 5, "cannot be downloaded"),
        (["dtd", "out"], 5, "downloads and cannot be downloaded"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    run_cli: Run, words: list[str], code: int, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = run_cli("data", *words)
    assert (outcome.code, message in outcome.err, outcome.out) == (code, True, "")
    assert outcome.err.count("\n") == 1
    assert not (tmp_path / "out").exists()
