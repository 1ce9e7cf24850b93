"""Labeled splits: found or made, seeded, stratified and disjoint, or refused with the reason."""

from collections import Counter
from pathlib import Path

import pytest

from smn_cli.data.labels.eval_split import LabeledSplit, load_labeled_split
from smn_cli.datasets.digits import write_digits
from smn_cli.errors import DataError, UsageError


def touch(root: Path, counts: dict[str, int]) -> None:
    """Empty image files: splitting looks at names only."""
    for folder, count in counts.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            (root / folder / f"{number:03d}.png").write_bytes(b"")


def counts(split: LabeledSplit) -> tuple[dict[str, int], dict[str, int]]:
    """Images by class in training and test images, after holding labels against the folders' names."""
    sides = []
    for paths, labels in ((split.train_paths, split.train_labels), (split.test_paths, split.test_labels)):
        assert [split.classes[label] for label in labels] == [path.parent.name for path in paths]
        sides.append(dict(Counter(path.parent.name for path in paths)))
    return sides[0], sides[1]


@pytest.mark.parametrize("name", ["test", "val", "valid", "validation"])
def test_train_and_test_folders_are_taken_as_they_are(tmp_path: Path, name: str) -> None:
    touch(tmp_path, {"train/b": 3, "train/a": 2, f"{name}/a": 1, f"{name}/b": 4})
    split = load_labeled_split(tmp_path)
    assert split.classes == ["a", "b"]
    assert counts(split) == ({"a": 2, "b": 3}, {"a": 1, "b": 4})
    assert split.origin == f"train/ and {name}/"


def test_test_goes_before_val(tmp_path: Path) -> None:
    touch(tmp_path, {"train/a": 2, "train/b": 2, "val/a": 1, "test/b": 1})
    assert counts(load_labeled_split(tmp_path))[1] == {"b": 1}


def test_class_folders_alone_are_split_by_class(tmp_path: Path) -> None:
    touch(tmp_path, {"a": 10, "b": 5, "c": 2, "d": 100})
    split = load_labeled_split(tmp_path)
    assert counts(split) == ({"a": 8, "b": 4, "c": 1, "d": 80}, {"a": 2, "b": 1, "c": 1, "d": 20})
    assert not set(split.train_paths) & set(split.test_paths)
    assert split.origin == "stratified split, 0.2 for testing, seed 0"


def test_a_made_split_follows_its_seed_alone(tmp_path: Path) -> None:
    touch(tmp_path, {"a": 30, "b": 30})
    assert load_labeled_split(tmp_path, seed=3) == load_labeled_split(tmp_path, seed=3)
    assert load_labeled_split(tmp_path, seed=3).test_paths != load_labeled_split(tmp_path, seed=4).test_paths


def test_adding_a_class_does_not_change_the_split_of_the_others(tmp_path: Path) -> None:
    touch(tmp_path, {"b": 30, "c": 30})
    before = load_labeled_split(tmp_path).test_paths
    touch(tmp_path, {"a": 30})
    assert [path for path in load_labeled_split(tmp_path).test_paths if path.parent.name != "a"] == before


def test_limits_are_kept_and_spread_evenly_over_the_classes(tmp_path: Path) -> None:
    touch(tmp_path, {"train/a": 50, "train/b": 50, "train/c": 3, "test/a": 9, "test/b": 9, "test/c": 9})
    split = load_labeled_split(tmp_path, max_train=23, max_test=9)
    assert counts(split) == ({"a": 10, "b": 10, "c": 3}, {"a": 3, "b": 3, "c": 3})
    assert split == load_labeled_split(tmp_path, max_train=23, max_test=9)
    other = load_labeled_split(tmp_path, max_train=23, max_test=9, seed=1)
    assert split.train_paths != other.train_paths


def test_limits_that_nothing_reaches_change_nothing(tmp_path: Path) -> None:
    touch(tmp_path, {"train/a": 5, "train/b": 5, "test/a": 2, "test/b": 2})
    assert load_labeled_split(tmp_path, max_train=10, max_test=4) == load_labeled_split(tmp_path)


def test_fewer_test_images_than_classes_leave_classes_out_of_the_test_images_only(tmp_path: Path) -> None:
    touch(tmp_path, {"train/a": 5, "train/b": 5, "train/c": 5, "test/a": 2, "test/b": 2, "test/c": 2})
    train, test = counts(load_labeled_split(tmp_path, max_test=2))
    assert train == {"a": 5, "b": 5, "c": 5}
    assert sum(test.values()) == 2


def test_fewer_training_images_than_classes_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, {"train/a": 5, "train/b": 5, "train/c": 5, "test/a": 2})
    with pytest.raises(UsageError, match="`max_train` 2 is fewer than the 3 classes"):
        load_labeled_split(tmp_path, max_train=2)


def test_a_class_that_no_test_image_has_stays_among_the_training_images(tmp_path: Path) -> None:
    touch(tmp_path, {"train/a": 5, "train/b": 5, "test/b": 2})
    split = load_labeled_split(tmp_path)
    assert split.classes == ["a", "b"]
    assert split.test_labels == [1, 1]


REFUSED = {
    "a class without training images": (
        {"train/a": 3, "train/b": 3, "test/c": 1},
        "class c is among the test images but",
    ),
    "a single class": ({"train/a": 3, "test/a": 1}, "has only the class a: a score needs two classes"),
    "a single class folder": ({"a": 3}, "has only the class a: a score needs two classes"),
    "a class of one image": ({"a": 3, "b": 1}, r"class b has a single image \(.*000\.png\): a split needs two"),
    "train alone": ({"train/a": 3, "train/b": 3}, "has train/ but neither test/ nor val/"),
    "test alone": ({"test/a": 3, "test/b": 3}, "test has no train/ beside it"),
    "test and val alone": ({"test/a": 3, "val/a": 3}, "test has no train/ beside it"),
    "an empty test folder": ({"train/a": 3, "train/b": 3, "test": 0}, "test has no class folders with images"),
    "images without classes": ({"": 3}, "has no class folders with images"),
}


@pytest.mark.parametrize(("folders", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_no_split_is_refused(tmp_path: Path, folders: dict[str, int], message: str) -> None:
    touch(tmp_path, folders)
    with pytest.raises(DataError, match=message):
        load_labeled_split(tmp_path)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="gone is not a folder"):
        load_labeled_split(tmp_path / "gone")


def test_the_digits_are_written_as_a_labeled_split(tmp_path: Path) -> None:
    write_digits(tmp_path)
    split = load_labeled_split(tmp_path)
    assert split.classes == [str(digit) for digit in range(10)]
    assert (len(split.train_paths), len(split.test_paths)) == (1437, 360)
