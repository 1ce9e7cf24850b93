"""From what a user names (folders, files, lists of paths) to a sorted list of image files."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from smn_cli.errors import DataError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"})
LIST_SUFFIXES = frozenset({".txt", ".lst"})


def find_images(inputs: Sequence[str | Path]) -> list[Path]:
    """All image files that `inputs` name, each once, sorted: neither the file system nor the inputs' order matters.

    Args:
        inputs: folders (searched to any depth; hidden entries and links to folders are left out), image files, or
            text files with one path a line, relative to the list's own folder; blank and '#' lines are skipped.

    Raises:
        DataError: an input does not exist, is neither kind, a folder cannot be read, or there is no image in any of
            them.
    """
    found: dict[str, Path] = {}
    for item in inputs:
        for path in _expand(Path(item)):
            found.setdefault(os.path.abspath(path), path)  # noqa: PTH100  # resolve() would cost a look at every part
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
    classes = {name: list(_walk(folder / name)) for name in names}
    classes = {name: paths for name, paths in classes.items() if paths}
    if not classes:
        raise DataError(f"{folder} has no class folders with images: expected {folder}/CLASS/image.jpg")
    return classes


def _expand(path: Path) -> Iterable[Path]:
    if path.is_dir():
        return _walk(path)
    if not path.exists():
        raise DataError(f"{path} does not exist: expected a folder, an image or a text file of paths")
    suffix = path.suffix.lower()
    if suffix in LIST_SUFFIXES:
        return _read_list(path)
    if suffix in IMAGE_SUFFIXES:
        return [path]
    raise DataError(f"{path} is neither an image nor a list of paths (.txt): expected a folder, an image or a list")


def _walk(folder: Path) -> Iterable[Path]:
    for root, folders, files in os.walk(folder, onerror=_refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and Path(name).suffix.lower() in IMAGE_SUFFIXES:
                yield Path(root, name)


def _refuse(error: OSError) -> None:
    raise DataError(f"{error.filename} cannot be searched for images: {error.strerror}")


def _read_list(path: Path) -> Iterable[Path]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as a UTF-8 list of paths: {error}") from None
    for number, line in enumerate(lines, 1):
        entry = line.strip()
        if not entry or entry.startswith("#"):
            continue
        target = path.parent / entry
        if not target.is_file():
            raise DataError(f"{path} line {number}: {entry} is not a file; paths are taken relative to {path.parent}")
        yield target


def _names(inputs: Sequence[str | Path]) -> str:
    return ", ".join(str(item) for item in inputs) or "an empty list"
