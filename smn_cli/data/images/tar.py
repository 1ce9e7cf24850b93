"""Images inside tar files (WebDataset shards).

A tar is indexed once, by its headers alone, and again when its size or time changed.
"""

import io
from collections.abc import Collection
from functools import cache
from pathlib import Path
from typing import BinaryIO

from smn_cli.data.images.members import MAX_MEMBER_BYTES, MemberError, Stamp
from smn_cli.data.images.tar_headers import Place, read_members
from smn_cli.data.images.tar_index import kept_or_read

MIN_MEMBERS = 1000
"""Tars with fewer images are indexed again by every process rather than kept on disk."""


def names_in(tar: str, stamp: Stamp) -> Collection[str]:
    """Names of the images in a tar.

    Raises:
        DataError: the tar cannot be read, is damaged or cut short.
    """
    return _read_index(tar, stamp).keys()


def open_member(tar: str, name: str, stamp: Stamp) -> BinaryIO:
    """The bytes of an image in a tar.

    Raises:
        MemberError: it cannot be used.
        OSError, DataError: the tar cannot be read.
    """
    place = _read_index(tar, stamp).get(name, "no such member in the tar")
    if isinstance(place, str):
        raise MemberError(place)
    offset, size = place
    if size > MAX_MEMBER_BYTES:
        raise MemberError(f"{size:,} bytes: more than {MAX_MEMBER_BYTES:,}")
    with Path(tar).open("rb") as file:
        file.seek(offset)
        return io.BytesIO(file.read(size))


@cache
def _read_index(tar: str, stamp: Stamp) -> dict[str, Place]:
    """The index for as long as the process lives, some 200 bytes an image: less than the list of paths takes."""
    places = kept_or_read(tar, stamp, lambda: read_members(Path(tar)), least=MIN_MEMBERS)
    return {name: place if isinstance(place, str) else (place[0], place[1]) for name, place in places.items()}
