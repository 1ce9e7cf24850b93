"""A data set written as class folders: complete, with a note of what it is, or not there."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import cast

from PIL import Image

from smn_cli.atomic import atomic_folder
from smn_cli.data.images.extensions import IMAGE_SUFFIXES, suffix_of
from smn_cli.datasets.fetch import Example, explained_lack_of_space
from smn_cli.errors import DataError, UsageError
from smn_cli.recognise import read_json
from smn_cli.schemas.images import DataNoteJson

NOTE = "smn-data.json"
"""Lies in the folder beside `train` and `test`."""


def read_note(folder: Path) -> DataNoteJson | None:
    """What was written to a folder earlier; None if the folder is not there or empty.

    Raises:
        UsageError: the folder holds something else.
        DataError: images were added or removed since.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return None
    try:
        note = read_json(folder / NOTE)
        expected = {half: int(note[half]) for half in ("train", "test")}
        is_whole = {"name", "seed", "classes", "split", "licence", "url"} <= note.keys()
        if not is_whole or not isinstance(note["classes"], list):
            raise ValueError
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError):
        raise UsageError(f"{folder} exists and was not written by smn data: name another folder") from None
    for half, count in expected.items():
        found = sum(1 for path in (folder / half).glob("*/*") if suffix_of(path.name) in IMAGE_SUFFIXES)
        if found != count:
            raise DataError(f"{folder / half} has {found:,} images instead of {count:,}: delete {folder} and try again")
    return cast(DataNoteJson, dict(note))  # its keys were looked at above


def write_class_folders(
    folder: Path, halves: dict[str, list[Example]], note: Mapping[str, object], tick: Callable[[int], None]
) -> None:
    """Write `folder/HALF/CLASS/NAME` for all examples, then the note.

    Files are copied as they are; pixels become PNG.

    Args:
        folder: not there, or empty.
        halves: examples by "train" and "test".
        note: plain values.
        tick: called with the number of images written so far.

    Raises:
        DataError: two examples have the same place, or there is no space left.
    """
    done = 0
    with explained_lack_of_space(folder), atomic_folder(folder) as temporary:
        for half, examples in halves.items():
            for example in examples:
                _write(temporary / half / example.label / example.name, example)
                done += 1
                tick(done)
        (temporary / NOTE).write_text(json.dumps(note, indent=2) + "\n")


def _write(path: Path, example: Example) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        raise DataError(f"two images would be {'/'.join(path.parts[-3:])}: the downloaded files are damaged")
    if isinstance(example.source, Image.Image):
        example.source.save(path)
    else:
        shutil.copyfile(example.source, path)
