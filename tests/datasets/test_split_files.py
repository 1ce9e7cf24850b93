"""A split file chooses among a data set's images, and can do nothing else."""

import json
from pathlib import Path
from typing import Any

import pytest

from smn_cli.datasets.fetch import Example
from smn_cli.datasets.split_files import split_by_file
from smn_cli.errors import DataError, FileError

EXAMPLES = [
    Example("1.jpg", "banded", Path("/root/dtd/images/banded/1.jpg")),
    Example("2.jpg", "banded", Path("/root/dtd/images/banded/2.jpg")),
    Example("3.jpg", "river", Path("/root/dtd/images/river/3.jpg")),
    Example("0.jpg", "banded", Path("/root/dtd/images/banded/0.jpg")),
    Example("0.jpg", "river", Path("/root/dtd/images/river/0.jpg")),
]


def split(tmp_path: Path, content: Any) -> tuple[list[str], list[str]]:
    """Names of both halves under a file of that content."""
    (tmp_path / "s.json").write_text(json.dumps(content))
    train, test = split_by_file(EXAMPLES, tmp_path / "s.json")
    return [e.name for e in train], [e.name for e in test]


@pytest.mark.parametrize("folder", ["", "{}/", "images/{}/"])
def test_images_are_found_whatever_the_folder_the_file_starts_from(folder: str, tmp_path: Path) -> None:
    names = [folder.format("banded") + "1.jpg", folder.format("banded") + "2.jpg", folder.format("river") + "3.jpg"]
    content = {part: [[name, 7, "../../x"]] for part, name in zip(("test", "val", "train"), names, strict=True)}
    assert split(tmp_path, content) == (["3.jpg", "2.jpg"], ["1.jpg"])


@pytest.mark.parametrize(
    "content", [[], {}, {"train": []}, {"train": 1, "val": [], "test": []}, {"train": [[]], "val": [], "test": []}, "x"]
)
def test_what_is_no_split_file_is_refused(content: Any, tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r'is no split file: expected lists "train", "val" and "test"'):
        split(tmp_path, content)


@pytest.mark.parametrize("name", ["4.jpg", "0.jpg", "/etc/passwd", "../banded/1.jpg", ""])
def test_images_of_another_set_are_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="names images that are not in this data set"):
        split(tmp_path, {"train": [[name, 0, "x"]], "val": [], "test": []})


def test_an_image_in_both_halves_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"both for training and for testing: 1\.jpg"):
        split(tmp_path, {"train": [], "val": [["1.jpg", 0, "x"]], "test": [["banded/1.jpg", 0, "x"]]})


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"`split` \S+ does not exist: expected a JSON file of CoOp"):
        split_by_file(EXAMPLES, tmp_path / "gone.json")
