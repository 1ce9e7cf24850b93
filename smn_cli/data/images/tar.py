"""Images inside tar files (WebDataset shards), read where they lie; nothing is ever unpacked.

An image in a tar has a path as if the tar were a folder: `shards/000.tar/0001.jpg`. Everything that opens an image goes
through `open_image`. A tar is indexed once, by its headers alone, and again when its size or time changed.
"""

import contextlib
import io
import os
import re
import stat
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import BinaryIO

from smn_cli.data.images.tar_headers import Place, read_members
from smn_cli.data.images.tar_index import is_settled, load_index, save_index
from smn_cli.errors import DataError

MIN_MEMBERS = 1000
"""Tars with fewer images are indexed again by every process rather than kept on disk."""
MAX_MEMBER_BYTES = 1_000_000_000
"""Largest member that is read: a member goes through memory whole, and no decodable image is larger."""

Stamp = tuple[int, int, int]
_INTO_TAR = re.compile(r"\.tar" + re.escape(os.sep), re.IGNORECASE)


@dataclass(frozen=True)
class TarIndex:
    """Where the images of a tar lie.

    Attributes:
        stamp: (size in bytes, mtime_ns, inode) of the file that was indexed.
        places: name to (offset, size in bytes), or to the reason why that member cannot be used.
    """

    stamp: Stamp
    places: dict[str, Place]


class TarMemberError(OSError):
    """A member of a tar that is not there or cannot be used; the message is the reason, without the path."""


def list_tar(tar: Path) -> list[str]:
    """Names of the images in a tar, sorted; those that cannot be used are among them, with the reason kept.

    Raises:
        DataError: the tar cannot be read, is damaged or cut short.
    """
    return sorted(_index_of(tar).places)


def is_tar_member(path: Path) -> bool:
    """Whether a path leads into a tar, to a member that is there.

    Raises:
        DataError: the tar cannot be read, is damaged or cut short.
    """
    split = _split(str(path))
    return split is not None and split[1] in _read_index(split[0], split[2]).places


def open_image(path: Path) -> BinaryIO:
    """An image's bytes, from a file or from a member of a tar.

    Raises:
        OSError: it cannot be opened; `TarMemberError` says why a member cannot be used.
    """
    split = _split(str(path))
    if split is None:
        return path.open("rb")
    try:
        return _open_member(*split)
    except DataError as error:
        raise TarMemberError(str(error)) from None


def _open_member(tar: str, name: str, stamp: Stamp) -> BinaryIO:
    place = _read_index(tar, stamp).places.get(name, "no such member in the tar")
    if isinstance(place, str):
        raise TarMemberError(place)
    offset, size = place
    if size > MAX_MEMBER_BYTES:
        raise TarMemberError(f"{size:,} bytes: more than {MAX_MEMBER_BYTES:,}")
    with Path(tar).open("rb") as file:
        file.seek(offset)
        return io.BytesIO(file.read(size))


def _split(path: str) -> tuple[str, str, Stamp] | None:
    """The tar that a path leads into, the name in it and the tar's stamp; None if no part of it is a tar file."""
    for match in reversed(list(_INTO_TAR.finditer(path))):
        tar = path[: match.end() - 1]
        with contextlib.suppress(OSError):
            found = os.stat(tar)  # noqa: PTH116  # once an image
            if stat.S_ISREG(found.st_mode):  # a folder may have such a name too
                return tar, path[match.end() :].replace(os.sep, "/"), _stamp(found)
    return None


def _index_of(tar: Path) -> TarIndex:
    try:
        found = tar.stat()
    except OSError as error:
        raise DataError(f"{tar} cannot be read: {error.strerror}") from None
    if not stat.S_ISREG(found.st_mode):
        raise DataError(f"{tar} is not a regular file: expected a tar")
    return _read_index(str(tar), _stamp(found))


def _stamp(found: os.stat_result) -> Stamp:
    return found.st_size, found.st_mtime_ns, found.st_ino


@cache
def _read_index(tar: str, stamp: Stamp) -> TarIndex:
    """The index for as long as the process lives, some 200 bytes an image: less than the list of paths takes."""
    subject = os.path.abspath(tar)  # noqa: PTH100
    kept = load_index(subject)
    if kept is not None and tuple(kept["stamp"]) == stamp:
        places = {name: place if isinstance(place, str) else (place[0], place[1]) for name, place in kept["places"]}
        return TarIndex(stamp, places)
    seen_ns = time.time_ns()
    places = read_members(Path(tar))
    if len(places) >= MIN_MEMBERS and is_settled(stamp[1], seen_ns):
        save_index(subject, {"stamp": list(stamp), "places": list(places.items())})
    return TarIndex(stamp, places)
