"""Class folders become labels; orders and parts hold all classes."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from smn_cli.config.options import AdaptOptions
from smn_cli.data.labels.labeled_images import find_labeled_images, spread_over_classes
from smn_cli.errors import DataError, UsageError
from tests.conftest import write_images

WITH_LABELS = AdaptOptions(labels="folders")


def test_training_folders_label_the_images_and_a_test_split_is_never_among_them(labeled_folder: Path) -> None:
    found = find_labeled_images([labeled_folder], WITH_LABELS)
    assert found is not None
    assert found.classes == ("blue", "green", "red")
    assert len(found.paths) == 36
    assert all(found.classes[found.label_of[path]] == path.parent.name for path in found.paths)
    assert not any("test" in path.parts[-3:] for path in found.paths)
    assert found.paths == sorted(found.paths)


def test_class_folders_alone_do_as_well(labeled_folder: Path) -> None:
    found = find_labeled_images([labeled_folder / "test"], WITH_LABELS)
    assert found is not None
    assert len(found.paths) == 18


def test_without_the_option_nothing_is_labeled(labeled_folder: Path) -> None:
    assert find_labeled_images([labeled_folder], AdaptOptions()) is None


def test_what_is_no_folder_of_classes_is_refused(labeled_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="takes one folder of class folders, found 2 inputs"):
        find_labeled_images([labeled_folder, labeled_folder], WITH_LABELS)
    with pytest.raises(DataError, match="has no class folders with images"):
        find_labeled_images([labeled_folder / "train" / "red"], WITH_LABELS)
    write_images(tmp_path / "one" / "only", 3)
    with pytest.raises(DataError, match="has only the class only: `labels` folders needs two class folders or more"):
        find_labeled_images([tmp_path / "one"], WITH_LABELS)
    write_images(tmp_path / "one" / "line\nbreak", 3)
    with pytest.raises(DataError, match="has a name that no adapter can hold: rename it"):
        find_labeled_images([tmp_path / "one"], WITH_LABELS)


def test_smaller_fractions_are_parts_of_larger_ones_and_keep_every_class(labeled_folder: Path) -> None:
    parts = []
    for fraction in (0.01, 0.25, 0.5, 1.0):
        found = find_labeled_images([labeled_folder], AdaptOptions(labels="folders", label_fraction=fraction, seed=5))
        assert found is not None
        parts.append(set(found.paths))
        assert set(found.label_of.values()) == {0, 1, 2}
    assert [len(part) for part in parts] == [3, 9, 18, 36]
    assert parts[0] < parts[1] < parts[2] < parts[3]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.integers(0, 5))
def test_every_beginning_holds_the_classes_in_their_shares(values: list[int], seed: int) -> None:
    labels = torch.tensor(values)
    order = spread_over_classes(labels, torch.Generator().manual_seed(seed))
    assert sorted(order) == list(range(len(values)))
    num_classes = len(set(values))
    for end in range(len(values) - num_classes + 1):
        taken = labels[order[:end]]
        for label in set(values):
            size, num = values.count(label), int((taken == label).sum())
            assert num < size  # one is left of every class
            # the shares are even up to the images that are kept for the end
            assert abs(num / (size + 1) - end / (len(values) + num_classes)) < 1.0 * num_classes / (size + 1)


def test_the_order_follows_the_generator_alone() -> None:
    labels = torch.arange(40) % 3
    orders = [spread_over_classes(labels, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert orders[0] == orders[1] != orders[2]
