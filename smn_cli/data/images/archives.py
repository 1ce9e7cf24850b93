"""Images inside tars, zips and parquet files, read where they lie; nothing is ever unpacked.

An image in an archive has a path as if that were a folder: `shards/000.tar/0001.jpg`, `photos.zip/a/1.jpg`,
`train.parquet/0000012.img` (row 12, from 0). Everything that opens an image goes through `open_image`.
"""

import contextlib
import os
import re
import stat
from collections.abc import Callable, Collection
from pathlib import Path
from typing import BinaryIO, NamedTuple

from smn_cli.data.images import parquet, tar, zips
from smn_cli.data.images.extensions import ARCHIVE_SUFFIXES, suffix_of
from smn_cli.data.images.members import MemberError, Stamp, stamp_of
from smn_cli.errors import DataError, UsageError


class _Reader(NamedTuple):
    """Of a kind of archive: the names of its images, and the bytes of one; both know a file by path and stamp."""

    names: Callable[[str, Stamp], Collection[str]]
    open: Callable[[str, str, Stamp], BinaryIO]


_READERS = {
    ".tar": _Reader(tar.names_in, tar.open_member),
    ".zip": _Reader(zips.names_in, zips.open_member),
    ".parquet": _Reader(parquet.names_in, parquet.open_member),
}
_INTO_ARCHIVE = re.compile(
    f"(?:{'|'.join(re.escape(suffix) for suffix in sorted(ARCHIVE_SUFFIXES))}){re.escape(os.sep)}", re.IGNORECASE
)


def list_archive(archive: Path) -> list[str]:
    """Names of the images in an archive, sorted; those that cannot be used are among them, with the reason kept.

    Raises:
        DataError: the archive cannot be read, is damaged or cut short, or is a parquet file without images.
        UsageError: the package that reads it is not installed.
    """
    try:
        found = archive.stat()
    except OSError as error:
        raise DataError(f"{archive} cannot be read: {error.strerror}") from None
    if not stat.S_ISREG(found.st_mode):
        raise DataError(f"{archive} is not a regular file: expected a {suffix_of(archive.name)[1:]}")
    return sorted(_READERS[suffix_of(archive.name)].names(str(archive), stamp_of(found)))


def is_archive_member(path: Path) -> bool:
    """Whether a path leads into an archive, to a member that is there.

    Raises:
        DataError, UsageError: as `list_archive`.
    """
    split = _split(str(path))
    return split is not None and split[1] in _READERS[suffix_of(split[0])].names(split[0], split[2])


def open_image(path: Path) -> BinaryIO:
    """An image's bytes, from a file or from a member of an archive.

    Raises:
        OSError: it cannot be opened; `MemberError` says why a member cannot be used.
    """
    split = _split(str(path))
    if split is None:
        return path.open("rb")
    try:
        return _READERS[suffix_of(split[0])].open(*split)
    except (DataError, UsageError) as error:
        raise MemberError(str(error)) from None


def _split(path: str) -> tuple[str, str, Stamp] | None:
    """The archive that a path leads into, the name in it and its stamp; None if no part of it is an archive."""
    for match in reversed(list(_INTO_ARCHIVE.finditer(path))):
        archive = path[: match.end() - len(os.sep)]
        with contextlib.suppress(OSError):
            found = os.stat(archive)  # noqa: PTH116  # once an image
            if stat.S_ISREG(found.st_mode):  # a folder may have such a name too
                return archive, path[match.end() :].replace(os.sep, "/"), stamp_of(found)
    return None
