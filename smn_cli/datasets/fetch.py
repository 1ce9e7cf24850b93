"""A known data set's images by class, from files that torchvision fetches or finds."""

import errno
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torchvision
from PIL import Image

from smn_cli.datasets.known_sets import KnownSet
from smn_cli.errors import DataError
from smn_cli.seeding import named_draw


@dataclass(frozen=True)
class Example:
    """One image: a file to copy, or pixels without a file.

    Attributes:
        name: file name to be.
        label: folder to be.
        source: the file, or where the image lies in an array.
    """

    name: str
    label: str
    source: Path | Image.Image

    @property
    def path(self) -> Path:
        """Of the file; of pixels the name they will have."""
        return self.source if isinstance(self.source, Path) else Path(self.label, self.name)


def fetch(
    known: KnownSet,
    root: Path,
    *,
    seed: int,
    choose: Callable[[list[Example]], tuple[list[Example], list[Example]]] | None = None,
) -> tuple[list[Example], list[Example]]:
    """Training and test examples, sorted by class and name.

    Args:
        known: the data set.
        root: where torchvision's files are, or are downloaded to.
        seed: of the split, where one has to be made.
        choose: a split other than the known one, from all examples.

    Raises:
        DataError: the files are not there and cannot be had, or are incomplete.
    """
    parts = known.splits or (({},), ())
    # a broken download shows in many ways: what the files list is missing, or they list too little
    try:
        halves = [[example for options in half for example in _examples(known, root, options)] for half in parts]
    except (FileNotFoundError, KeyError, IndexError, ValueError, TypeError, EOFError) as error:
        raise _incomplete(known, root, str(error) or type(error).__name__) from None
    num_found = sum(len(half) for half in halves)
    if num_found != known.num_images:
        raise _incomplete(known, root, f"{num_found:,} images instead of {known.num_images:,}")
    if choose is not None:
        train, test = choose([*halves[0], *halves[1]])
    else:
        train, test = _split(halves[0], known, seed) if known.splits is None else halves
    return sorted(train, key=_place), sorted(test, key=_place)


@contextmanager
def explained_lack_of_space(folder: Path) -> Iterator[None]:
    """Around what writes many bytes below a folder.

    Raises:
        DataError: in place of the error of a full disk.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise DataError(f"no space left for {folder}: free some, or name a folder on another disk") from None


def _examples(known: KnownSet, root: Path, options: dict[str, object]) -> list[Example]:
    dataset = _open(known, root, options)
    if hasattr(dataset, "data"):
        digits = len(str(len(dataset.data)))
        return [
            Example(f"{position:0{digits}d}.png", _folder_name(dataset.classes[label]), Image.fromarray(pixels))
            for position, (pixels, label) in enumerate(zip(dataset.data, dataset.targets, strict=True))
        ]
    files, labels = _files_and_labels(dataset)
    # Flowers102 names its classes in newer versions of torchvision alone, and folders must not depend on that
    classes = [f"{label + 1:03d}" for label in range(102)] if known.loader == "Flowers102" else dataset.classes
    examples = [
        Example(path.name, _folder_name(classes[label]), path) for path, label in zip(files, labels, strict=True)
    ]
    missing = next((path for path in files if not path.is_file()), None)
    if missing is not None:
        raise FileNotFoundError(f"{missing} is missing")
    return examples


def _open(known: KnownSet, root: Path, options: dict[str, object]) -> Any:
    # CIFAR's batches are pickles. torchvision opens them only after each matched the MD5 sum of the published file, and
    # nobody can yet make another file of a given sum, so no pickle but the authors' own is ever loaded.
    loader = getattr(torchvision.datasets, known.loader)
    with suppress(RuntimeError):  # its only way to say that the files are not there
        return loader(str(root), **options)
    root.mkdir(parents=True, exist_ok=True)
    try:
        # some versions of torchvision print, where results or JSON belong
        with explained_lack_of_space(root), redirect_stdout(sys.stderr):
            return loader(str(root), **options, download=True)
    except (RuntimeError, URLError, HTTPException, ConnectionError, TimeoutError) as error:
        reason = (str(error) or type(error).__name__).strip().splitlines()[0].rstrip(".")
        raise DataError(
            f"{known.loader} is not complete in {root} and cannot be downloaded ({reason}): connect, or get it from "
            f"{known.url} and unpack it to {root / known.folder}"
        ) from None


def _files_and_labels(dataset: Any) -> tuple[list[Path], Sequence[int]]:
    if hasattr(dataset, "samples"):
        return [Path(path) for path, _ in dataset.samples], dataset.targets
    files = dataset._images if hasattr(dataset, "_images") else dataset._image_files
    return [Path(path) for path in files], dataset._labels


def _folder_name(label: str) -> str:
    return label.replace("/", "_").replace(" ", "_")


def _place(example: Example) -> tuple[str, str]:
    return example.label, example.name


def _split(examples: list[Example], known: KnownSet, seed: int) -> tuple[list[Example], list[Example]]:
    """Stratified; a class's draw depends on the seed, its name and its files alone."""
    by_class: dict[str, list[Example]] = {}
    for example in sorted(examples, key=_place):
        by_class.setdefault(example.label, []).append(example)
    train: list[Example] = []
    test: list[Example] = []
    for label, members in by_class.items():
        shuffled = named_draw(seed, label).sample(members, len(members))
        num_test = known.images_per_class or round(known.test_fraction * len(members))
        num_train = known.images_per_class or len(members) - num_test
        test += shuffled[:num_test]
        train += shuffled[num_test : num_test + num_train]
    return train, test


def _incomplete(known: KnownSet, root: Path, found: str) -> DataError:
    return DataError(
        f"{known.loader} in {root} is incomplete or damaged ({found}): delete {root / known.folder} and try again"
    )
