"""From what a user names (folders, files, archives, lists of paths) to a sorted list of images."""

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from smn_cli.data.images.archives import is_archive_member, list_archive
from smn_cli.data.images.extensions import (
    ARCHIVE_SUFFIXES,
    COMPRESSED_SUFFIXES,
    IMAGE_SUFFIXES,
    LIST_SUFFIXES,
    is_archive,
    is_compressed_tar,
    suffix_of,
)
from smn_cli.data.images.parquet import NoImagesError
from smn_cli.errors import DataError, first_few

_LOOKED_FOR = IMAGE_SUFFIXES | ARCHIVE_SUFFIXES | COMPRESSED_SUFFIXES
_Note = Callable[[str], None]


def find_images(inputs: Sequence[str | Path], *, note: _Note | None = None) -> list[Path]:
    """All images that `inputs` name, each once, sorted: neither the file system nor the inputs' order matters.

    Args:
        inputs: folders (searched to any depth, also through links; hidden entries are left out), image files,
            archives of images (tar, zip, parquet), or text files with one path a line, relative to the list's own
            folder; blank and '#' lines are skipped. A folder's archives count where it has no loose images: else they
            are mostly the same images, packed. Its parquet files without images are left out.
        note: called with a line on what was left out.

    Returns:
        Paths; an image in an archive has one below it, as if that were a folder, see `smn_cli.data.images.archives`.

    Raises:
        DataError: an input does not exist, is neither kind, a folder or archive cannot be read, a tar is
            compressed, or there is no image in any of them.
        UsageError: the package that reads an archive is not installed.
    """
    found: dict[str, Path] = {}
    for item in inputs:
        for name, path in _expand(Path(item), note or (lambda _line: None)):
            found.setdefault(name, path)
    if not found:
        kinds = ", ".join(sorted(suffix[1:] for suffix in IMAGE_SUFFIXES))
        raise DataError(f"no images in {_names(inputs)}: expected files ending in {kinds}")
    return [found[name] for name in sorted(found)]


def find_class_folders(folder: Path) -> dict[str, list[Path]]:
    """Images by class for a folder that holds one folder a class; empty classes are left out.

    Raises:
        DataError: the folder is missing or holds no class folder with images.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder: expected one folder a class inside it")
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    classes = {name: [path for _, path in _in_folder(folder / name, lambda _line: None)] for name in names}
    classes = {name: paths for name, paths in classes.items() if paths}
    if not classes:
        raise DataError(f"{folder} has no class folders with images: expected {folder}/CLASS/image.jpg")
    return classes


def _expand(path: Path, note: _Note) -> Iterator[tuple[str, Path]]:
    """Images with their absolute names."""
    if path.is_dir():
        yield from _in_folder(path, note)
    elif path.exists() and not path.is_file():
        raise DataError(f"{path} is a pipe, a socket or a device: expected a folder, an image, an archive or a list")
    elif path.exists():
        yield from _in_file(path)
    elif is_archive_member(path):
        yield _absolute(path), path
    else:
        raise DataError(f"{path} does not exist: expected a folder, an image, an archive or a text file of paths")


def _in_file(path: Path) -> Iterator[tuple[str, Path]]:
    suffix = path.suffix.lower()
    if suffix in LIST_SUFFIXES:
        yield from _read_list(path)
    elif is_archive(path) or is_compressed_tar(path):
        yield from _in_archive(path)
    elif suffix in IMAGE_SUFFIXES:
        yield _absolute(path), path
    else:
        raise DataError(f"{path} is neither an image nor a list of paths (.txt): expected a folder, an image or a list")


def _in_folder(folder: Path, note: _Note) -> Iterator[tuple[str, Path]]:
    names = list_files(folder, _LOOKED_FOR, note)
    images = [name for name in names if suffix_of(name) in IMAGE_SUFFIXES]
    archives = [folder / name for name in names if suffix_of(name) in ARCHIVE_SUFFIXES]
    compressed = [
        path for name in names if suffix_of(name) in COMPRESSED_SUFFIXES and is_compressed_tar(path := folder / name)
    ]
    if images:
        yield from _named(folder, images)
        if archives:
            note(f"{folder} has images and archives ({_first(archives)}): those are left out; name them to use them")
    else:
        for archive in archives or compressed:
            try:
                yield from _in_archive(archive)
            except NoImagesError as error:
                note(f"{archive} is left out: {error}")
    if compressed:
        note(f"{folder}: compressed tars are left out ({_first(compressed)})")


def list_files(folder: Path, suffixes: frozenset[str], note: _Note | None = None) -> list[str]:
    """Files with one of the suffixes (lower case, with the dot) below a folder, relative to it.

    Hidden entries are left out, and pipes, sockets and devices. A folder's files come sorted, then its folders, sorted;
    then folders that links lead to, each once: one that was searched already, by whatever way, is left out.

    Args:
        folder: that is searched.
        suffixes: of the files.
        note: called with a line on what was left out.

    Raises:
        DataError: a folder cannot be read.
    """
    root, found, note = _absolute(folder), [], note or (lambda _line: None)
    seen: set[tuple[int, int]] = set()
    links = [""]  # the folder itself, then links in the order in which they were met
    while links:
        waiting = [links.pop(0)]
        while waiting:
            inner = waiting.pop()
            path = os.path.join(root, inner) if inner else root  # noqa: PTH118
            try:
                status = os.stat(path)  # noqa: PTH116
                if (identity := (status.st_dev, status.st_ino)) in seen:
                    note(f"{path} is left out: it leads to a folder that is searched already")
                    continue
                seen.add(identity)
                listing = _list_folder(path, suffixes, note)
            except OSError as error:
                raise DataError(f"{error.filename} cannot be searched for images: {error.strerror}") from None
            prefix = f"{inner}/" if inner else ""
            found += [prefix + name for name in listing.files]
            links += [prefix + name for name in listing.links]
            waiting += [prefix + name for name in reversed(listing.folders)]
    return found


class _Listing(NamedTuple):
    """Sorted names in a folder: of folders, of links to folders, of the wanted files."""

    folders: list[str]
    links: list[str]
    files: list[str]


def _list_folder(path: str, suffixes: frozenset[str], note: _Note) -> _Listing:
    listing = _Listing([], [], [])
    with os.scandir(path) as entries:  # Path costs more than listing
        for entry in entries:
            if entry.name.startswith("."):
                continue
            is_link, has_suffix = entry.is_symlink(), suffix_of(entry.name) in suffixes
            if is_link and os.path.isdir(entry.path):  # noqa: PTH112  # entry.is_dir raises where links run in a circle
                listing.links.append(entry.name)
            elif entry.is_dir(follow_symlinks=False):
                listing.folders.append(entry.name)
            elif is_link and not os.path.exists(entry.path):  # noqa: PTH110
                if has_suffix:  # told among the bad images
                    listing.files.append(entry.name)
                else:
                    note(f"{entry.path} is left out: the link leads nowhere")
            elif has_suffix:
                if os.path.isfile(entry.path) if is_link else entry.is_file(follow_symlinks=False):  # noqa: PTH113
                    listing.files.append(entry.name)
                else:
                    note(f"{entry.path} is left out: it is no file, but a pipe, a socket or a device")
    for names in listing:
        names.sort()
    return listing


def _in_archive(archive: Path) -> Iterator[tuple[str, Path]]:
    if is_compressed_tar(archive):
        raise DataError(
            f"{archive} is compressed, so that no image in it can be read alone: unpack it, or repack it as .tar"
        )
    yield from _named(archive, list_archive(archive))


def _named(parent: Path, names: list[str]) -> Iterator[tuple[str, Path]]:
    root = os.path.join(_absolute(parent), "")  # noqa: PTH118
    for name in names:
        yield root + name.replace("/", os.sep), Path(parent, name)


def _absolute(path: Path) -> str:
    return os.path.abspath(path)  # noqa: PTH100  # resolve() would cost a look at every part


def _read_list(path: Path) -> Iterator[tuple[str, Path]]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as a UTF-8 list of paths: {error}") from None
    for number, line in enumerate(lines, 1):
        entry = line.strip()
        if not entry or entry.startswith("#"):
            continue
        target = path.parent / entry
        if is_archive(target) or is_compressed_tar(target):
            yield from _in_archive(target)
        elif target.is_file() or is_archive_member(target):
            yield _absolute(target), target
        else:
            raise DataError(f"{path} line {number}: {entry} is not a file; paths are taken relative to {path.parent}")


def _first(paths: list[Path]) -> str:
    return first_few([path.name for path in paths], limit=2)


def _names(inputs: Sequence[str | Path]) -> str:
    return ", ".join(str(item) for item in inputs) or "an empty list"
