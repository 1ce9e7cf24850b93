"""Tiny downloads of the paper's data sets, on disk as torchvision leaves them."""

import hashlib
import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torchvision
from PIL import Image

from smn_cli.datasets.known_sets import KNOWN_SETS


def picture(path: Path, seed: int) -> None:
    """Noise as JPEG, followed by a byte that no encoder writes, so that only a copy is equal."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels(seed, 8)).save(path, quality=90)
    path.write_bytes(path.read_bytes() + b"\x07")


def pixels(seed: int, side: int) -> np.ndarray:
    """Noise (side, side, 3)."""
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)


def expect(patch: pytest.MonkeyPatch, name: str, num_images: int) -> None:
    """Let a known set be as small as the fake."""
    patch.setitem(KNOWN_SETS, name, replace(KNOWN_SETS[name], num_images=num_images))


def cifar(root: Path, patch: pytest.MonkeyPatch, name: str) -> None:
    """Two training batches (one for CIFAR-100) of three images and a test batch of two, with their MD5 sums."""
    loader = getattr(torchvision.datasets, KNOWN_SETS[name].loader)
    folder, is_ten = root / loader.base_folder, name == "cifar10"
    folder.mkdir(parents=True)
    key = "labels" if is_ten else "fine_labels"

    def write(file: str, content: object) -> str:
        (folder / file).write_bytes(pickle.dumps(content, protocol=2))
        return hashlib.md5((folder / file).read_bytes()).hexdigest()

    def batch(file: str, seeds: list[int]) -> list[str]:
        rows = np.stack([pixels(seed, 32).transpose(2, 0, 1).reshape(-1) for seed in seeds])
        return [file, write(file, {"data": rows, key: [seed % 2 for seed in seeds]})]

    train = ["data_batch_1", "data_batch_2"] if is_ten else ["train"]
    lists = [batch(file, [10 * part + k for k in range(3)]) for part, file in enumerate(train)]
    patch.setattr(loader, "train_list", lists)
    patch.setattr(loader, "test_list", [batch("test_batch" if is_ten else "test", [100, 101])])
    meta = {**loader.meta, "md5": write(loader.meta["filename"], {loader.meta["key"]: ["plane", "aquarium_fish"]})}
    patch.setattr(loader, "meta", meta)
    expect(patch, name, 3 * len(train) + 2)


def dtd(root: Path, patch: pytest.MonkeyPatch, name: str) -> None:
    """Two classes with an image in each of the three parts of split 1, and other splits that are not to be used."""
    folder = root / "dtd" / "dtd"
    for number, part in enumerate(("train", "val", "test")):
        lines = [f"{label}/{label}_{number:04d}.jpg" for label in ("banded", "zigzagged")]
        (folder / "labels").mkdir(parents=True, exist_ok=True)
        (folder / "labels" / f"{part}1.txt").write_text("\n".join(lines) + "\n")
        (folder / "labels" / f"{part}2.txt").write_text("banded/other.jpg\n")
        for position, line in enumerate(lines):
            picture(folder / "images" / line, 10 * number + position)
    expect(patch, name, 6)


def eurosat(root: Path, patch: pytest.MonkeyPatch, name: str) -> None:
    """Two classes of ten images."""
    for label in ("Forest", "River"):
        for number in range(10):
            picture(root / "eurosat" / "2750" / label / f"{label}_{number}.jpg", number)
    expect(patch, name, 20)


def flowers(root: Path, patch: pytest.MonkeyPatch, name: str) -> None:
    """Two images in each part; classes are numbers."""
    from scipy.io import savemat

    folder = root / "flowers-102"
    for number in range(1, 7):
        picture(folder / "jpg" / f"image_{number:05d}.jpg", number)
    savemat(folder / "imagelabels.mat", {"labels": [[1, 102, 1, 102, 1, 102]]})
    savemat(folder / "setid.mat", {"trnid": [[1, 2]], "valid": [[3, 4]], "tstid": [[5, 6]]})
    sums = {file: hashlib.md5((folder / file).read_bytes()).hexdigest() for file in ("imagelabels.mat", "setid.mat")}
    known = torchvision.datasets.Flowers102._file_dict
    patch.setattr(
        torchvision.datasets.Flowers102,
        "_file_dict",
        {key: (file, sums.get(file, md5)) for key, (file, md5) in known.items()},
    )
    expect(patch, name, 6)


def food(root: Path, patch: pytest.MonkeyPatch, name: str) -> None:
    """Two classes, two images for training and one for testing each."""
    folder = root / "food-101"
    (folder / "meta").mkdir(parents=True)
    for part, numbers in (("train", (1, 2)), ("test", (3,))):
        files = {label: [f"{label}/{number}" for number in numbers] for label in ("waffles", "apple_pie")}
        (folder / "meta" / f"{part}.json").write_text(json.dumps(files))
        for paths in files.values():
            for path in paths:
                picture(folder / "images" / f"{path}.jpg", len(path))
    expect(patch, name, 6)


def pets(root: Path, patch: pytest.MonkeyPatch, name: str) -> None:
    """A cat and a dog, two images for training and one for testing each."""
    folder = root / "oxford-iiit-pet"
    (folder / "annotations").mkdir(parents=True)
    for part, numbers in (("trainval", (1, 2)), ("test", (3,))):
        lines = [
            f"{pet}_{n} {label} {label} 1" for label, pet in enumerate(("Abyssinian", "beagle"), 1) for n in numbers
        ]
        (folder / "annotations" / f"{part}.txt").write_text("\n".join(lines) + "\n")
        for line in lines:
            picture(folder / "images" / f"{line.split()[0]}.jpg", len(line))
    expect(patch, name, 6)


def sun(root: Path, patch: pytest.MonkeyPatch, name: str) -> None:
    """Two classes, one of them nested, five images each, of which two and two are drawn."""
    folder = root / "SUN397"
    folder.mkdir(parents=True)
    (folder / "ClassName.txt").write_text("/a/abbey\n/a/apartment_building/outdoor\n")
    for label in ("a/abbey", "a/apartment_building/outdoor"):
        for number in range(5):
            picture(folder / label / f"sun_{number}{len(label)}.jpg", number)
    expect(patch, name, 10)
    patch.setitem(KNOWN_SETS, name, replace(KNOWN_SETS[name], images_per_class=2))


DOWNLOADS: dict[str, Callable[[Path, pytest.MonkeyPatch, str], None]] = {
    "cifar10": cifar,
    "cifar100": cifar,
    "dtd": dtd,
    "eurosat": eurosat,
    "flowers102": flowers,
    "food101": food,
    "oxfordiiitpet": pets,
    "sun397": sun,
}
