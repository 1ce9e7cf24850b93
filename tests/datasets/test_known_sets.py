"""Known data sets become class folders with the right images in the right half, whole or not at all."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torchvision
from PIL import Image

from smn_cli.datasets.class_folders import NOTE, read_note, write_class_folders
from smn_cli.datasets.fetch import Example, fetch
from smn_cli.datasets.known_sets import KNOWN_SETS, find_known_set
from smn_cli.errors import DataError, UsageError
from tests.datasets.downloads import DOWNLOADS, pixels

HALVES = {
    "cifar10": ({"plane": 4, "aquarium_fish": 2}, {"plane": 1, "aquarium_fish": 1}),
    "cifar100": ({"plane": 2, "aquarium_fish": 1}, {"plane": 1, "aquarium_fish": 1}),
    "dtd": ({"banded": 2, "zigzagged": 2}, {"banded": 1, "zigzagged": 1}),
    "eurosat": ({"Forest": 7, "River": 7}, {"Forest": 3, "River": 3}),
    "flowers102": ({"001": 2, "102": 2}, {"001": 1, "102": 1}),
    "food101": ({"waffles": 2, "apple_pie": 2}, {"waffles": 1, "apple_pie": 1}),
    "oxfordiiitpet": ({"Abyssinian": 2, "Beagle": 2}, {"Abyssinian": 1, "Beagle": 1}),
    "sun397": ({"abbey": 2, "apartment_building_outdoor": 2}, {"abbey": 2, "apartment_building_outdoor": 2}),
}
SUMMARY: dict[str, Any] = {"name": "x", "seed": 0, "classes": ["a"], "split": "s", "licence": None, "url": "u"}


def counted(examples: list[Example]) -> dict[str, int]:
    """Images by class."""
    return {label: sum(e.label == label for e in examples) for label in sorted({e.label for e in examples})}


@pytest.mark.parametrize("name", KNOWN_SETS)
def test_every_set_is_split_as_it_says(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    DOWNLOADS[name](tmp_path, monkeypatch, name)
    train, test = fetch(KNOWN_SETS[name], tmp_path, seed=0)
    assert (counted(train), counted(test)) == HALVES[name]
    assert not {(e.label, e.name) for e in train} & {(e.label, e.name) for e in test} or name.startswith("cifar")
    assert train == sorted(train, key=lambda e: (e.label, e.name))


@pytest.mark.parametrize("name", ["eurosat", "sun397"])
def test_made_splits_follow_from_the_seed_alone(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("one", "other"):
        DOWNLOADS[name](tmp_path / folder, monkeypatch, name)

    def names(folder: str, seed: int) -> list[list[str]]:
        return [[e.name for e in half] for half in fetch(KNOWN_SETS[name], tmp_path / folder, seed=seed)]

    assert names("one", 0) == names("other", 0)
    assert names("one", 0) != names("one", 1)


def test_cifars_pixels_come_back_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    DOWNLOADS["cifar10"](tmp_path / "root", monkeypatch, "cifar10")
    train, test = fetch(KNOWN_SETS["cifar10"], tmp_path / "root", seed=0)
    write_class_folders(tmp_path / "out", {"train": train, "test": test}, {}, lambda done: None)
    found = sorted((tmp_path / "out" / "train").glob("*/*"), key=lambda path: path.name)
    assert [path.parent.name for path in found] == ["plane", "aquarium_fish", "plane"] * 2
    for path, seed in zip(found, (0, 1, 2, 10, 11, 12), strict=True):
        assert np.array_equal(np.asarray(Image.open(path)), pixels(seed, 32))


def test_a_pickle_other_than_the_published_one_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    DOWNLOADS["cifar10"](tmp_path, monkeypatch, "cifar10")
    with (tmp_path / "cifar-10-batches-py" / "data_batch_2").open("ab") as file:
        file.write(b"\x00")
    monkeypatch.setattr("pickle.load", lambda *_, **__: pytest.fail("a changed pickle was opened"))
    with pytest.raises(DataError, match=r"CIFAR10 is not complete in \S+ and cannot be downloaded \(.+\): connect, or"):
        fetch(KNOWN_SETS["cifar10"], tmp_path, seed=0)


def test_files_are_copied_byte_for_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    DOWNLOADS["dtd"](tmp_path / "root", monkeypatch, "dtd")
    train, test = fetch(KNOWN_SETS["dtd"], tmp_path / "root", seed=0)
    write_class_folders(tmp_path / "out", {"train": train, "test": test}, {}, lambda done: None)
    copied = tmp_path / "out" / "test" / "zigzagged" / "zigzagged_0002.jpg"
    original = tmp_path / "root/dtd/dtd/images/zigzagged/zigzagged_0002.jpg"
    assert copied.read_bytes() == original.read_bytes()


@pytest.mark.parametrize("name", KNOWN_SETS)
def test_a_download_that_lost_a_file_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    DOWNLOADS[name](tmp_path, monkeypatch, name)
    files = sorted(path for path in tmp_path.rglob("*") if path.suffix == ".jpg" or "batch" in path.name)
    (files[-1] if files else tmp_path / "cifar-100-python" / "test").unlink()
    with pytest.raises(
        DataError, match=r"is incomplete or damaged \(.+\): delete|is not complete in .* connect, or get"
    ):
        fetch(KNOWN_SETS[name], tmp_path, seed=0)


@pytest.mark.parametrize("lost", ["labels/val1.txt", "labels"])
def test_a_download_that_lost_its_lists_is_refused(lost: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    DOWNLOADS["dtd"](tmp_path, monkeypatch, "dtd")
    path = tmp_path / "dtd" / "dtd" / lost
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(DataError, match=rf"DTD in {tmp_path} is incomplete or damaged .*: delete {tmp_path / 'dtd'}"):
        fetch(KNOWN_SETS["dtd"], tmp_path, seed=0)


@pytest.mark.parametrize("name", KNOWN_SETS)
def test_without_network_it_says_where_to_get_the_files(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot be downloaded \(.+\): connect, or get it from https://") as error_info:
        fetch(KNOWN_SETS[name], tmp_path / "root", seed=0)
    assert str(tmp_path / "root" / KNOWN_SETS[name].folder) in str(error_info.value)
    assert "\n" not in str(error_info.value)


def test_torchvision_knows_every_set() -> None:
    for known in KNOWN_SETS.values():
        assert hasattr(torchvision.datasets, known.loader)


@pytest.mark.parametrize(
    ("name", "found"), [("CIFAR-10", "cifar10"), ("pets", "oxfordiiitpet"), ("OxfordIIITPet", "oxfordiiitpet")]
)
def test_names_are_known_in_usual_spellings(name: str, found: str) -> None:
    assert find_known_set(name)[0] == found


def test_an_unknown_name_suggests_near_ones_or_lists_all() -> None:
    with pytest.raises(
        UsageError, match="cifar1000 is not a data set that smn knows: did you mean cifar100 or cifar10"
    ):
        find_known_set("cifar1000")
    with pytest.raises(UsageError, match="expected one of cifar10, cifar100, dtd"):
        find_known_set("zzz")


def examples(*names: str) -> list[Example]:
    """Tiny images of one class."""
    return [Example(name, "a", Image.new("RGB", (2, 2))) for name in names]


class PowerCut(BaseException):
    """Not an Exception, as a Ctrl-C is not."""


@pytest.mark.parametrize("failure", [PowerCut, OSError])
def test_a_failing_write_leaves_nothing(failure: type[BaseException], tmp_path: Path) -> None:
    def tick(done: int) -> None:
        if done == 2:
            raise failure

    with pytest.raises(failure):
        write_class_folders(tmp_path / "out", {"train": examples("0.png", "1.png", "2.png")}, {}, tick)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_one_clear_error(tmp_path: Path) -> None:
    def tick(done: int) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(DataError, match=r"no space left for \S+/out: free some, or name a folder on another disk"):
        write_class_folders(tmp_path / "out", {"train": examples("0.png")}, {}, tick)
    assert list(tmp_path.iterdir()) == []


def test_the_empty_folder_one_stands_in_is_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path / "out")
    write_class_folders(Path(), {"train": examples("0.png")}, {}, lambda done: None)
    assert (tmp_path / "out" / "train" / "a" / "0.png").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_two_images_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"two images would be train/a/0\.png"):
        write_class_folders(tmp_path / "out", {"train": examples("0.png", "0.png")}, {}, lambda done: None)
    assert not (tmp_path / "out").exists()


def test_a_written_folder_is_known_again_until_it_changes(tmp_path: Path) -> None:
    out, note = tmp_path / "out", {**SUMMARY, "train": 2, "test": 1}
    assert read_note(out) is None
    out.mkdir()
    assert read_note(out) is None
    halves = {"train": examples("0.png", "1.png"), "test": examples("0.png")}
    write_class_folders(out, halves, note, lambda done: None)
    assert read_note(out) == note
    assert out.stat().st_mode & 0o077  # not private, as a temporary folder is
    (out / "train" / "a" / "1.png").unlink()
    with pytest.raises(DataError, match=r"out/train has 1 images instead of 2: delete"):
        read_note(out)


@pytest.mark.parametrize("content", [None, "{", "[]", json.dumps({"train": 1, "test": 1}), json.dumps({"name": "x"})])
def test_a_folder_of_something_else_is_never_written_to(content: str | None, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    if content is not None:
        (tmp_path / NOTE).write_text(content)
    with pytest.raises(UsageError, match="exists and was not written by smn data: name another folder"):
        read_note(tmp_path)
