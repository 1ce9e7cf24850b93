"""The paper's data sets by name: where they come from, and how each is split."""

from dataclasses import dataclass
from difflib import get_close_matches

from smn_cli.errors import UsageError


@dataclass(frozen=True)
class KnownSet:
    """A data set that torchvision can fetch.

    Attributes:
        loader: torchvision's class.
        num_images: images in all its splits together.
        splits: torchvision's arguments for the parts that make up `train` and `test`; none if it has no split.
        split_words: in words, where the split comes from, and how it differs from the paper's.
        licence: as its makers state it; empty if they state none.
        url: its page.
        folder: of its files below the root.
        test_fraction: share of each class for testing where a split has to be made.
        images_per_class: images of each class in each half where a split has to be made; 0 for all.
    """

    loader: str
    num_images: int
    splits: tuple[tuple[dict[str, object], ...], tuple[dict[str, object], ...]] | None
    split_words: str
    licence: str
    url: str
    folder: str
    test_fraction: float = 0.0
    images_per_class: int = 0


_OFFICIAL = "official split, as in the paper"
_Splits = tuple[tuple[dict[str, object], ...], tuple[dict[str, object], ...]]
_CIFAR: _Splits = ({"train": True},), ({"train": False},)
_TRAIN_VAL_TEST: _Splits = ({"split": "train"}, {"split": "val"}), ({"split": "test"},)

KNOWN_SETS: dict[str, KnownSet] = {
    "cifar10": KnownSet(
        "CIFAR10",
        60_000,
        _CIFAR,
        _OFFICIAL,
        "",
        "https://www.cs.toronto.edu/~kriz/cifar.html",
        "cifar-10-batches-py",
    ),
    "cifar100": KnownSet(
        "CIFAR100",
        60_000,
        _CIFAR,
        _OFFICIAL,
        "",
        "https://www.cs.toronto.edu/~kriz/cifar.html",
        "cifar-100-python",
    ),
    "dtd": KnownSet(
        "DTD",
        5_640,
        _TRAIN_VAL_TEST,
        "official split 1, train and val merged; the paper has CoOp's own 3,948/1,692",
        "research only",
        "https://www.robots.ox.ac.uk/~vgg/data/dtd/",
        "dtd",
    ),
    "eurosat": KnownSet(
        "EuroSAT",
        27_000,
        None,
        "no official split: 30 % of each class for testing, drawn here; the paper has CoOp's of the same sizes",
        "MIT",
        "https://github.com/phelber/eurosat",
        "eurosat",
        test_fraction=0.3,
    ),
    "flowers102": KnownSet(
        "Flowers102",
        8_189,
        _TRAIN_VAL_TEST,
        "official split, train and val merged; the paper has CoOp's own 5,726/2,463",
        "",
        "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/",
        "flowers-102",
    ),
    "food101": KnownSet(
        "Food101",
        101_000,
        (({"split": "train"},), ({"split": "test"},)),
        "official split; the paper has CoOp's own 70,700/30,300",
        "",
        "https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101/",
        "food-101",
    ),
    "oxfordiiitpet": KnownSet(
        "OxfordIIITPet",
        7_349,
        (({"split": "trainval"},), ({"split": "test"},)),
        _OFFICIAL,
        "CC BY-SA 4.0",
        "https://www.robots.ox.ac.uk/~vgg/data/pets/",
        "oxford-iiit-pet",
    ),
    "sun397": KnownSet(
        "SUN397",
        108_754,
        None,
        "50 images of each class for training and 50 for testing, drawn here; the paper has other 50 and 50",
        "",
        "https://vision.princeton.edu/projects/2010/SUN/",
        "SUN397",
        images_per_class=50,
    ),
}
_ALIASES = {"pets": "oxfordiiitpet", "oxfordpets": "oxfordiiitpet", "flowers": "flowers102", "food": "food101"}


def find_known_set(name: str) -> tuple[str, KnownSet]:
    """A data set and its name here, by name in any case ("CIFAR10", "cifar-10", "pets").

    Raises:
        UsageError: there is none of that name; the message has near ones.
    """
    plain = "".join(letter for letter in name.lower() if letter.isalnum())
    plain = _ALIASES.get(plain, plain)
    if plain in KNOWN_SETS:
        return plain, KNOWN_SETS[plain]
    near = get_close_matches(plain, [*KNOWN_SETS, *_ALIASES], 2)
    hint = f"did you mean {' or '.join(near)}?" if near else f"expected one of {', '.join(KNOWN_SETS)}"
    raise UsageError(f"{name} is not a data set that smn knows: {hint}")
