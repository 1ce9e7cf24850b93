"""Splits of CoOp, which the paper uses: JSON lists of images by "train", "val" and "test"."""

from pathlib import Path

from smn_cli.datasets.fetch import Example
from smn_cli.errors import DataError, FileError, first_few
from smn_cli.recognise import read_json


def split_by_file(examples: list[Example], path: Path) -> tuple[list[Example], list[Example]]:
    """The examples that a split file names, `val` merged into the first half.

    The file's names only choose among the examples; folders come from the examples themselves.

    Args:
        examples: all of a data set, each with a file.
        path: a file as `split_zhou_DescribableTextures.json`, with lists of [image, label, class].

    Raises:
        DataError: the file is missing, or names images that the data set does not have.
        FileError: it is no such file.
    """
    if not path.is_file():
        raise DataError(f"`split` {path} does not exist: expected a JSON file of CoOp, split_zhou_*.json")
    try:
        content = read_json(path)
        names = {part: [str(entry[0]) for entry in content[part]] for part in ("train", "val", "test")}
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        raise FileError(
            f'{path} is no split file: expected lists "train", "val" and "test" of [image, label, class]'
        ) from None
    known = _by_name(examples)
    unknown = [name for part in names.values() for name in part if name not in known]
    if unknown:
        raise DataError(f"`split` {path} names images that are not in this data set: {first_few(unknown, limit=3)}")
    train = {known[name].path: known[name] for name in [*names["train"], *names["val"]]}
    test = {known[name].path: known[name] for name in names["test"]}
    twice = [chosen.name for place, chosen in test.items() if place in train]
    if twice:
        raise DataError(f"`split` {path} has images both for training and for testing: {first_few(twice, limit=3)}")
    return list(train.values()), list(test.values())


def _by_name(examples: list[Example]) -> dict[str, Example]:
    """Examples by the ends of their paths, one to four parts long; an end that two share is left out."""
    found: dict[str, Example] = {}
    shared = set()
    for example in examples:
        for depth in range(1, 5):
            name = "/".join(example.path.parts[-depth:])
            if found.setdefault(name, example) is not example:
                shared.add(name)
    return {name: example for name, example in found.items() if name not in shared}
