"""Labeled folders for evaluation: `train/` and `test/` with one folder a class, or class folders alone."""

from dataclasses import dataclass
from pathlib import Path

from smn_cli.data.images.find import find_class_folders
from smn_cli.errors import DataError, UsageError, first_few
from smn_cli.seeding import named_draw

_TEST_NAMES = ("test", "val", "valid", "validation")


@dataclass(frozen=True)
class LabeledSplit:
    """Training and test images with labels 0 .. len(classes) - 1, which index `classes`.

    `origin` tells in words where the split comes from, for reports; `folder` is where it was read.
    """

    folder: Path
    classes: list[str]
    train_paths: list[Path]
    train_labels: list[int]
    test_paths: list[Path]
    test_labels: list[int]
    origin: str


def load_labeled_split(
    folder: Path,
    *,
    test_fraction: float = 0.2,
    seed: int = 0,
    max_train: int | None = None,
    max_test: int | None = None,
    for_selection: bool = False,
) -> LabeledSplit:
    """Read the split that `folder` holds, or make a seeded, stratified one from class folders alone.

    Args:
        folder: with `train/` and `test/` (or `val/`), or with class folders.
        test_fraction: share of each class that becomes test images when the split is made here; at least one image.
        seed: of the made split, and of the choice of images under the two limits.
        for_selection: prefer `val/` to `test/`, which a choice must not see.
        max_train, max_test: most images used, drawn evenly over the classes.

    Raises:
        DataError: no such split, one half of it without the other, fewer than two classes, or a class among the
            test images that no training image has.
        UsageError: `max_train` would leave a class without an image.
    """
    train_folder = folder / "train"
    names = (*_TEST_NAMES[1:], _TEST_NAMES[0]) if for_selection else _TEST_NAMES
    test_folder = next((folder / name for name in names if (folder / name).is_dir()), None)
    if train_folder.is_dir() and test_folder is None:
        raise DataError(f"{folder} has train/ but neither test/ nor val/: add one, or give the class folders alone")
    if test_folder is not None and not train_folder.is_dir():
        raise DataError(f"{test_folder} has no train/ beside it: add one, or give the class folders alone")
    if test_folder is not None:
        train, test = find_class_folders(train_folder), find_class_folders(test_folder)
        origin = f"train/ and {test_folder.name}/"
    else:
        train, test = _stratified(find_class_folders(folder), test_fraction, seed)
        origin = f"stratified split, {test_fraction:g} for testing, seed {seed}"
    if max_train is not None and max_train < len(train):
        raise UsageError(f"`max_train` {max_train} is fewer than the {len(train)} classes of {folder}: raise it")
    return _labeled(_limit(train, max_train, seed), _limit(test, max_test, seed + 1), origin, folder)


def _labeled(train: dict[str, list[Path]], test: dict[str, list[Path]], origin: str, folder: Path) -> LabeledSplit:
    unknown = sorted(test.keys() - train.keys())
    if unknown:
        raise DataError(
            f"{folder}: class {first_few(unknown)} is among the test images but not among the training images"
        )
    classes = sorted(train)
    if len(classes) < 2:
        raise DataError(f"{folder} has only the class {classes[0]}: a score needs two classes or more")
    label = {name: number for number, name in enumerate(classes)}
    train_pairs = [(path, label[name]) for name in classes for path in train[name]]
    test_pairs = [(path, label[name]) for name in sorted(test) for path in test[name]]
    return LabeledSplit(
        folder=folder,
        classes=classes,
        train_paths=[path for path, _ in train_pairs],
        train_labels=[number for _, number in train_pairs],
        test_paths=[path for path, _ in test_pairs],
        test_labels=[number for _, number in test_pairs],
        origin=origin,
    )


def _stratified(
    classes: dict[str, list[Path]], test_fraction: float, seed: int
) -> tuple[dict[str, list[Path]], dict[str, list[Path]]]:
    train: dict[str, list[Path]] = {}
    test: dict[str, list[Path]] = {}
    for name, paths in classes.items():
        if len(paths) < 2:
            raise DataError(f"class {name} has a single image ({paths[0]}): a split needs two or more of each class")
        shuffled = named_draw(seed, name).sample(paths, len(paths))
        num_test = min(max(1, round(test_fraction * len(paths))), len(paths) - 1)
        test[name], train[name] = sorted(shuffled[:num_test]), sorted(shuffled[num_test:])
    return train, test


def _limit(classes: dict[str, list[Path]], most: int | None, seed: int) -> dict[str, list[Path]]:
    """At most `most` images, the classes as even as their sizes allow."""
    if most is None or sum(map(len, classes.values())) <= most:
        return classes
    kept: dict[str, list[Path]] = {}
    left = most
    for position, name in enumerate(sorted(classes, key=lambda name: (len(classes[name]), name))):
        share = left // (len(classes) - position)
        shuffled = named_draw(seed, name).sample(classes[name], len(classes[name]))
        kept[name] = sorted(shuffled[:share])
        left -= len(kept[name])
    return {name: paths for name, paths in kept.items() if paths}
