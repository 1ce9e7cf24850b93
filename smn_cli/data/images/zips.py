"""Images inside zip files: stored or deflated, and nothing else.

The standard library reads the directory at the end of a zip, once; a member is then read from its place. Its `ZipFile`
is not kept open: processes that were forked would share its place in the file.
"""

import io
import stat
import struct
import zipfile
import zlib
from collections.abc import Collection
from functools import cache
from pathlib import Path
from typing import BinaryIO, NamedTuple

from smn_cli.data.images.members import MAX_MEMBER_BYTES, MAX_MEMBERS, MemberError, Stamp, label_of
from smn_cli.data.images.tar_index import kept_or_read
from smn_cli.errors import DataError

MIN_MEMBERS = 1000
"""Zips with fewer images are indexed again by every process rather than kept on disk."""
_ENCRYPTED = 1
_LOCAL = struct.Struct("<4s22xHH")
_LOCAL_SIGNATURE = b"PK\3\4"
_DAMAGED = "damaged in the zip"
_MAX_OFFSET = 1 << 62
"""No system has longer files, and most cannot be asked for a byte beyond 2^63."""


class _Place(NamedTuple):
    """Where a member's header lies, and what the zip's directory says of it."""

    offset: int
    packed_bytes: int
    size_bytes: int
    method: int
    crc: int


def names_in(path: str, stamp: Stamp) -> Collection[str]:
    """Names of the images in a zip.

    Raises:
        DataError: the zip cannot be read, is damaged or cut short, or has more than two million images.
    """
    return _read_index(path, stamp).keys()


def open_member(path: str, name: str, stamp: Stamp) -> BinaryIO:
    """The bytes of an image in a zip, as long as its directory says and with its checksum.

    Raises:
        MemberError: it cannot be used.
        OSError, DataError: the zip cannot be read.
    """
    place = _read_index(path, stamp).get(name, "no such member in the zip")
    if isinstance(place, str):
        raise MemberError(place)
    if (size := max(place.size_bytes, place.packed_bytes)) > MAX_MEMBER_BYTES:
        raise MemberError(f"{size:,} bytes: more than {MAX_MEMBER_BYTES:,}")
    with Path(path).open("rb") as file:
        file.seek(place.offset)
        header = file.read(_LOCAL.size)
        if len(header) < _LOCAL.size or not header.startswith(_LOCAL_SIGNATURE):
            raise MemberError(_DAMAGED)
        _, num_name, num_extra = _LOCAL.unpack(header)
        file.seek(num_name + num_extra, io.SEEK_CUR)
        packed = file.read(place.packed_bytes)
    data = packed if place.method == zipfile.ZIP_STORED else _inflated(packed, place.size_bytes)
    if len(data) != place.size_bytes or zlib.crc32(data) != place.crc:
        raise MemberError(_DAMAGED)
    return io.BytesIO(data)


def _inflated(packed: bytes, size_bytes: int) -> bytes:
    """At most one byte more than there should be, whatever the stream would give."""
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, size_bytes + 1)
    except zlib.error:
        raise MemberError(_DAMAGED) from None


@cache
def _read_index(path: str, stamp: Stamp) -> dict[str, _Place | str]:
    places = kept_or_read(path, stamp, lambda: _read_members(path), least=MIN_MEMBERS)
    return {name: place if isinstance(place, str) else _Place(*place) for name, place in places.items()}


def _read_members(path: str) -> dict[str, _Place | str]:
    try:
        with zipfile.ZipFile(path) as file:
            entries = file.infolist()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None
    except Exception as error:  # of a damaged directory also struct.error, ValueError, NotImplementedError, ...
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise DataError(f"{path} is not a zip file, damaged or cut short ({reason}): fetch or pack it again") from None
    members: dict[str, _Place | str] = {}
    for entry in entries:
        label = label_of(entry.filename, "zip") if entry.filename[-1:] not in ("", "/") else None
        if label is not None:
            place = _Place(entry.header_offset, entry.compress_size, entry.file_size, entry.compress_type, entry.CRC)
            members[label.name] = label.reason or _why_not(entry) or place
    if len(members) > MAX_MEMBERS:
        raise DataError(f"{path} has more than {MAX_MEMBERS:,} images: split it")
    return members


def _why_not(entry: zipfile.ZipInfo) -> str:
    """Why a member cannot be read; empty if it can."""
    if entry.flag_bits & _ENCRYPTED:
        return "encrypted in the zip: unpack it, or pack it without a password"
    if stat.S_ISLNK(entry.external_attr >> 16):
        return "a symbolic link in the zip: not followed"
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return f"packed in the zip by method {entry.compress_type}: expected stored or deflated"
    if not 0 <= entry.header_offset < _MAX_OFFSET:  # the directory lies about where it stands
        return _DAMAGED
    return ""
