"""smn data: a known data set as class folders."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from smn_cli.datasets.known_sets import KNOWN_SETS
from smn_cli.terminal.option_parameters import choosing
from smn_cli.terminal.options import JsonOption

if TYPE_CHECKING:
    from smn_cli.console import Output
    from smn_cli.schemas.images import DataJson, DataNoteJson, SplitNoteJson


def data(
    name: Annotated[
        str,
        typer.Argument(help=f"One of {', '.join(KNOWN_SETS)}.", **{**choosing(tuple(KNOWN_SETS)), "metavar": "NAME"}),
    ],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where train/CLASS/ and test/CLASS/ are written.")],
    root: Annotated[
        Path | None,
        typer.Option("--root", metavar="CACHE", help="Where torchvision's downloads are or go; by default the cache."),
    ] = None,
    split: Annotated[
        Path | None, typer.Option("--split", metavar="FILE", help="Split of CoOp (split_zhou_*.json) in place of ours.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the split, for sets that have none.")] = 0,
    json: JsonOption = None,
) -> None:
    """Write a data set of the paper as class folders with its split, downloaded or from files that are there.

    Examples:
        smn data cifar10 ./cifar10
        smn data eurosat ./eurosat --split split_zhou_EuroSAT.json
    """
    from functools import partial

    from smn_cli.cache_folder import cache_folder
    from smn_cli.console import Output, say_at_once
    from smn_cli.datasets.known_sets import find_known_set
    from smn_cli.errors import UsageError

    output = Output(json)
    plain, known = find_known_set(name)
    if not folder.absolute().parent.is_dir():
        raise UsageError(f"{folder}: the folder {folder.absolute().parent} does not exist")
    if root is not None and root.exists() and not root.is_dir():
        raise UsageError(f"--root {root} is no folder: expected one for torchvision's downloads")
    say_at_once("smn data: loading torchvision")
    from smn_cli.datasets.class_folders import read_note, write_class_folders
    from smn_cli.datasets.fetch import fetch
    from smn_cli.datasets.split_files import split_by_file

    is_drawn = known.splits is None and split is None
    words = known.split_words if split is None else f"{split.name}, train and val merged"
    wanted: SplitNoteJson = {
        "name": plain,
        "seed": seed if is_drawn else None,
        "split": f"{words}, seed {seed}" if is_drawn else words,
    }
    note = read_note(folder)
    if note is not None and any(note.get(key) != value for key, value in wanted.items()):
        raise UsageError(f"{folder} holds {note['name']} with another split, {note['split']}: name another folder")
    if note is None:
        choose = None if split is None else partial(split_by_file, path=split)
        train, test = fetch(known, root or cache_folder() / "downloads", seed=seed, choose=choose)
        note = {
            **wanted,
            "train": len(train),
            "test": len(test),
            "classes": sorted({example.label for example in train}),
            "licence": known.licence or None,
            "url": known.url,
        }
        with output.progress("writing", len(train) + len(test)) as tick:
            write_class_folders(folder, {"train": train, "test": test}, note, tick)
    else:
        output.talk(f"{folder} is there already, complete")
    _report(output, folder, note)


def _report(output: "Output", folder: Path, note: "DataNoteJson") -> None:
    output.result(f"{folder}: {note['train']:,} training, {note['test']:,} test images, {len(note['classes'])} classes")
    output.result(f"split: {note['split']}")
    output.result(f"licence: {note['licence'] or 'none stated'}, see {note['url']}")
    content: DataJson = {"schema": "smn.data/1", "dir": str(folder), **note}
    output.json(content)
