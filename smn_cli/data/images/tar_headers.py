"""The headers of a tar, read one after another: which members there are and where their bytes lie.

The standard library decodes a header block. Its `TarFile` is not used: on hostile files it reads as much as they claim
into memory, and in older Pythons goes backwards for ever. Here nothing but headers is read, sizes have bounds, and
every step goes forward.
"""

import tarfile
from pathlib import Path
from typing import BinaryIO, NamedTuple

from smn_cli.data.images.members import MAX_MEMBERS, label_of
from smn_cli.errors import DataError

Place = tuple[int, int] | str
"""Where the bytes of a member lie, (offset, size); or why it cannot be used."""

BLOCK = 512
MAX_EXTENDED_BYTES = 1 << 20
"""Longest name or extended header that is read; the longest path that systems know has 4,096 bytes."""
_LONG_NAME, _LONG_LINK = tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK
_EXTENDED, _GLOBAL = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE), tarfile.XGLTYPE
_WITHOUT_BYTES = (
    tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE
)  # fmt: skip
"""Types that are only a header, whatever size it claims."""
_REASONS = {
    tarfile.LNKTYPE: "a hard link in the tar: not followed",
    tarfile.SYMTYPE: "a symbolic link in the tar: not followed",
    tarfile.CHRTYPE: "a device in the tar",
    tarfile.BLKTYPE: "a device in the tar",
    tarfile.FIFOTYPE: "a pipe in the tar",
    tarfile.GNUTYPE_SPARSE: "a sparse member of the tar: pack it without --sparse",
}


class _Extra(NamedTuple):
    """What extended headers say of the member that follows them."""

    name: str | None = None
    size: int | None = None
    is_sparse: bool = False


def read_members(tar: Path) -> dict[str, Place]:
    """Places of the images in a tar, by name; of equal names the last one counts, as for tar itself.

    Names are relative, with '/' between the parts. Hidden members (`.name`) and other files than images are left out.
    A name that is absolute, leads outside by '..' or holds control characters is made harmless, and its image is bad.

    Raises:
        DataError: it cannot be read, is no tar, is damaged or cut short, or has more than two million images.
    """
    members: dict[str, Place] = {}
    try:
        with tar.open("rb") as file:
            size_bytes = file.seek(0, 2)
            if size_bytes == 0:
                raise _BadTarError("is empty: expected a tar")
            _read_all(file, size_bytes, members)
    except OSError as error:
        raise DataError(f"{tar} cannot be read: {error.strerror}") from None
    except _BadTarError as error:
        raise DataError(f"{tar} {error}") from None
    return members


class _BadTarError(Exception):
    """What is wrong with a tar, as the end of a sentence."""


def _read_all(file: BinaryIO, size_bytes: int, members: dict[str, Place]) -> None:
    position, extra = 0, _Extra()
    while position < size_bytes:
        header = _header_at(file, position)
        if header is None:
            return
        data = position + BLOCK
        if header.type == tarfile.GNUTYPE_SPARSE:
            data = _after_sparse_map(file, position)
        is_extended = header.type in (_LONG_NAME, _LONG_LINK, _GLOBAL, *_EXTENDED)
        size = header.size if is_extended or extra.size is None else extra.size
        end = data if header.type in _WITHOUT_BYTES else data + size
        if size < 0 or end > size_bytes:
            raise _BadTarError(
                f"is cut short: member {header.name!r} ends at byte {end:,}, the file at {size_bytes:,}; fetch it again"
            )
        if is_extended:
            extra = _extended(file, data, header, extra)
        else:
            _note(members, header, extra, (data, size))
            extra = _Extra()
        position = data + -(-(end - data) // BLOCK) * BLOCK


def _header_at(file: BinaryIO, position: int) -> tarfile.TarInfo | None:
    """The header at a position, or None where the archive ends."""
    file.seek(position)
    block = file.read(BLOCK)
    try:
        return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError as error:
        if not any(block):
            return None
        what = "is damaged" if position else "is not a tar file, compressed, or damaged"
        raise _BadTarError(f"{what}: no tar header at byte {position:,} ({error})") from None


def _after_sparse_map(file: BinaryIO, position: int) -> int:
    """Where the bytes of an old sparse member begin: after as many blocks of its map as announce another one."""
    file.seek(position)
    goes_on = file.read(BLOCK)[482:483]
    position += BLOCK
    while goes_on and goes_on != b"\0":
        goes_on = file.read(BLOCK)[504:505]
        position += BLOCK
    return position


def _extended(file: BinaryIO, data: int, header: tarfile.TarInfo, extra: _Extra) -> _Extra:
    if header.type in (_LONG_LINK, _GLOBAL):  # what holds for all members is of no use here
        return extra
    if header.size > MAX_EXTENDED_BYTES:
        raise _BadTarError(f"is damaged: an extended header of {header.size:,} bytes at byte {data - BLOCK:,}")
    file.seek(data)
    content = file.read(header.size)
    if header.type == _LONG_NAME:
        return extra._replace(name=content.split(b"\0")[0].decode("utf-8", "surrogateescape"))
    try:
        return _from_records(content, extra)
    except ValueError:
        raise _BadTarError(f"is damaged: an unreadable extended header at byte {data - BLOCK:,}") from None


def _from_records(content: bytes, extra: _Extra) -> _Extra:
    """Records of the form "LENGTH KEY=VALUE\\n", the length counting itself."""
    position = 0
    while position < len(content) and content[position] != 0:
        digits = content[position : position + 20].split(b" ")[0]
        length = int(digits) if digits.isdigit() else 0
        record = content[position + len(digits) + 1 : position + length]
        key, equals, value = record.partition(b"=")
        if not equals or not record.endswith(b"\n") or position + length > len(content):
            raise ValueError("not a record")
        position += length
        if key == b"path":
            extra = extra._replace(name=value[:-1].decode("utf-8", "surrogateescape"))
        elif key == b"size":
            extra = extra._replace(size=int(value))
        elif key.startswith(b"GNU.sparse."):
            extra = extra._replace(is_sparse=True)
    return extra


def _note(members: dict[str, Place], header: tarfile.TarInfo, extra: _Extra, place: tuple[int, int]) -> None:
    """Keep a member if it is an image."""
    name = header.name if extra.name is None else extra.name
    label = None if header.isdir() else label_of(name, "tar")
    if label is None:
        return
    reason = _REASONS.get(header.type, "" if header.isreg() else "of an unknown type in the tar")
    if extra.is_sparse:
        reason = _REASONS[tarfile.GNUTYPE_SPARSE]
    if len(members) >= MAX_MEMBERS and label.name not in members:
        raise _BadTarError(f"has more than {MAX_MEMBERS:,} images: split it into shards")
    members[label.name] = label.reason or reason or place
