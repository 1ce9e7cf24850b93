"""Files below a folder. Large folders are listed once; later only the folders in it that changed are listed again.

A folder is known by device, inode and its times of change, which every file made, renamed or removed in it moves. What
comes out is always what a fresh walk gives.
"""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from smn_cli.data.images.extensions import suffix_of
from smn_cli.data.images.tar_index import is_settled, load_index, save_index
from smn_cli.errors import DataError

MIN_FILES = 20_000
"""Fewer files are listed in less time than an index is worth, see benchmarks/indexing.py."""


class Listing(NamedTuple):
    """What one folder holds, sorted; hidden entries left out.

    `stamp` is (device, inode, mtime_ns, ctime_ns) of the folder just before it was listed, at `seen_ns`. `files` have
    one of the wanted suffixes; so have `links`, whose targets may become folders without the folder showing it.
    """

    stamp: tuple[int, int, int, int]
    seen_ns: int
    folders: list[str]
    files: list[str]
    links: list[str]


def list_files(folder: Path, suffixes: frozenset[str]) -> list[str]:
    """Files with one of the suffixes (lower case, with the dot) below a folder, relative to it.

    Hidden entries and links to folders are left out. A folder's files come sorted, then its folders, sorted.

    Raises:
        DataError: a folder cannot be read.
    """
    root = os.path.abspath(folder)  # noqa: PTH100  # a link keeps its name, but not the listing of its old target
    kept = load_index(root)
    known = _from_json(kept["folders"]) if kept is not None and kept["suffixes"] == sorted(suffixes) else {}
    listings = walk(root, suffixes, known)
    found = list(_files(root, listings))
    if len(found) >= MIN_FILES and listings != known:
        save_index(root, {"suffixes": sorted(suffixes), "folders": _to_json(listings)})
    return found


def walk(root: str, suffixes: frozenset[str], known: dict[str, Listing]) -> dict[str, Listing]:
    """Listings by relative path of a folder and all below; those in `known` are taken over where nothing changed.

    Raises:
        DataError: a folder cannot be read.
    """
    listings: dict[str, Listing] = {}
    waiting = [""]
    while waiting:
        name = waiting.pop()
        path = os.path.join(root, name) if name else root  # noqa: PTH118  # Path costs more than listing
        try:
            listing = known.get(name)
            if listing is None or not _is_unchanged(listing, path):
                listing = _list(path, suffixes)
        except OSError as error:
            raise DataError(f"{error.filename} cannot be searched for images: {error.strerror}") from None
        listings[name] = listing
        waiting.extend(f"{name}/{inner}" if name else inner for inner in reversed(listing.folders))
    return listings


def _is_unchanged(listing: Listing, path: str) -> bool:
    stamp = listing.stamp
    return is_settled(max(stamp[2:]), listing.seen_ns) and _stamp(path) == stamp


def _stamp(path: str) -> tuple[int, int, int, int]:
    found = os.stat(path)  # noqa: PTH116
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_ctime_ns


def _list(path: str, suffixes: frozenset[str]) -> Listing:
    seen_ns, stamp = time.time_ns(), _stamp(path)
    listing = Listing(stamp, seen_ns, [], [], [])
    with os.scandir(path) as entries:
        for entry in entries:
            name = entry.name
            if name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                listing.folders.append(name)
            elif suffix_of(name) in suffixes:
                (listing.links if entry.is_symlink() else listing.files).append(name)
    for names in listing[2:]:
        names.sort()
    return listing


def _files(root: str, listings: dict[str, Listing]) -> Iterator[str]:
    for folder, listing in listings.items():
        names = listing.files
        if listing.links:
            linked = [name for name in listing.links if not os.path.isdir(os.path.join(root, folder, name))]  # noqa: PTH112, PTH118
            names = sorted(names + linked)
        yield from (f"{folder}/{name}" for name in names) if folder else names


def _to_json(listings: dict[str, Listing]) -> list[list[Any]]:
    """No name holds a slash, so that a folder's names fit into one string, which JSON reads fastest."""
    return [
        [name, list(listing.stamp), listing.seen_ns, *("/".join(names) for names in listing[2:])]
        for name, listing in listings.items()
    ]


def _from_json(entries: list[list[Any]]) -> dict[str, Listing]:
    return {
        name: Listing(tuple(stamp), seen_ns, *(names.split("/") if names else [] for names in joined))
        for name, stamp, seen_ns, *joined in entries
    }
