"""Images in the rows of parquet files, as the Hugging Face hub has them; by pyarrow, the extra `parquet`.

A column of images is a struct with a binary field `bytes` (and mostly a `path`, which is left aside), or binary itself.
Its row 12, counted from 0 over the file, is `NAME.parquet/0000012.img`. The footer says where rows lie; row groups are
read when one of their images is wanted, and the last ones stay in memory.
"""

import io
import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Collection, Iterator
from functools import cache
from typing import Any, BinaryIO, NamedTuple

from smn_cli.data.images.members import MAX_MEMBER_BYTES, MAX_MEMBERS, MemberError, Stamp
from smn_cli.errors import DataError, UsageError

KEPT_BYTES = 256_000_000
"""Row groups that a process keeps; one that is larger is kept alone."""
MAX_GROUP_BYTES = 2_000_000_000
"""Largest row group that is read: it goes through memory whole."""
_USUAL = ("image", "img")
_DIGITS, _SUFFIX = 7, ".img"


class NoImagesError(DataError):
    """A parquet file that holds no column of images."""


class RowNames(Collection[str]):
    """The names of N rows, without a list of them."""

    def __init__(self, num_rows: int) -> None:
        self.num_rows = num_rows

    def __len__(self) -> int:
        return self.num_rows

    def __iter__(self) -> Iterator[str]:
        return (f"{row:0{_DIGITS}d}{_SUFFIX}" for row in range(self.num_rows))

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.row_of(name) is not None

    def row_of(self, name: str) -> int | None:
        """The row of a name; None if there is none."""
        digits = name.removesuffix(_SUFFIX)
        if len(digits) != _DIGITS or not (digits.isascii() and digits.isdigit()) or not name.endswith(_SUFFIX):
            return None
        return int(digits) if int(digits) < self.num_rows else None


class _Footer(NamedTuple):
    """What a file says of itself: pyarrow's own metadata, the leaf that holds bytes, the first row of each group."""

    metadata: Any
    leaf: str
    starts: list[int]


_groups: "OrderedDict[tuple[str, Stamp, int], Any]" = OrderedDict()
_lock = threading.Lock()


def names_in(path: str, stamp: Stamp) -> Collection[str]:
    """Names of the rows of a parquet file.

    Raises:
        NoImagesError: it has no column of images.
        DataError: it cannot be read, is damaged, has several such columns, or row groups that are too large.
        UsageError: pyarrow is not installed.
    """
    return RowNames(_read_footer(path, stamp).metadata.num_rows)


def open_member(path: str, name: str, stamp: Stamp) -> BinaryIO:
    """The bytes of an image in a row.

    Raises:
        MemberError: there is no such row, or it holds no image.
        DataError, UsageError: as `names_in`.
    """
    footer = _read_footer(path, stamp)
    row = RowNames(footer.metadata.num_rows).row_of(name)
    if row is None:
        raise MemberError("no such row in the parquet file")
    group = bisect_right(footer.starts, row) - 1
    try:
        data = _group(path, stamp, group, footer)[row - footer.starts[group]].as_py()
    except Exception as error:  # of damaged pages pyarrow raises OSError, ArrowInvalid, IndexError, MemoryError, ...
        raise MemberError(f"its row group {group} in the parquet file is damaged: {_line(error)}") from None
    if data is None:
        raise MemberError("its row in the parquet file holds no bytes")
    if len(data) > MAX_MEMBER_BYTES:
        raise MemberError(f"{len(data):,} bytes: more than {MAX_MEMBER_BYTES:,}")
    return io.BytesIO(data)


def _group(path: str, stamp: Stamp, group: int, footer: _Footer) -> Any:
    """Bytes by row of a row group, from memory or read; equal ones stay one, or a small file would fill the memory."""
    key = (path, stamp, group)
    with _lock:
        if key in _groups:
            _groups.move_to_end(key)
            return _groups[key]
    from pyarrow.parquet import ParquetFile

    with ParquetFile(path, metadata=footer.metadata, read_dictionary=[footer.leaf], pre_buffer=False) as file:
        table = file.read_row_group(group, columns=[footer.leaf], use_threads=False)  # threads do not survive a fork
    column = table.column(0)
    found = column if "." not in footer.leaf else table.flatten().column(0)
    with _lock:
        _groups[key] = found
        while len(_groups) > 1 and sum(each.nbytes for each in _groups.values()) > KEPT_BYTES:
            _groups.popitem(last=False)
    return found


@cache
def _read_footer(path: str, stamp: Stamp) -> _Footer:
    try:
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise UsageError(f"{path} is read by pyarrow: pip install 'smn-cli[parquet]'") from None
    try:
        with ParquetFile(path) as file:
            return _checked(path, file.metadata, _leaf_of(path, file.schema_arrow))
    except DataError:
        raise
    except Exception as error:  # OSError, ArrowInvalid, UnicodeDecodeError in names, and others
        raise DataError(f"{path} is not a parquet file, damaged or cut short: {_line(error)}") from None


def _checked(path: str, metadata: Any, leaf: str) -> _Footer:
    """What the footer says, if that can be worked with."""
    if metadata.num_rows > MAX_MEMBERS:
        raise DataError(f"{path} has more than {MAX_MEMBERS:,} rows: split it")
    starts = [0]
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        size = group.total_byte_size  # not of its columns: pyarrow ends the process where one of these is damaged
        if size > MAX_GROUP_BYTES:
            raise DataError(
                f"{path}: row group {number} holds {size:,} bytes, more than {MAX_GROUP_BYTES:,}: write it "
                "again with fewer rows in a group"
            )
        starts.append(starts[-1] + group.num_rows)
    if starts.pop() != metadata.num_rows:
        raise DataError(f"{path} is damaged: its row groups do not hold its {metadata.num_rows:,} rows")
    return _Footer(metadata, leaf, starts)


def _leaf_of(path: str, schema: Any) -> str:
    """The column that holds the images' bytes."""
    from pyarrow import types

    def is_bytes(kind: Any) -> bool:
        return bool(types.is_binary(kind) or types.is_large_binary(kind))

    leaves: dict[str, str] = {}
    for field in schema:
        if is_bytes(field.type):
            leaves[field.name] = field.name
        elif types.is_struct(field.type) and any(part.name == "bytes" and is_bytes(part.type) for part in field.type):
            leaves[field.name] = f"{field.name}.bytes"
    if not leaves:
        raise NoImagesError(
            f"{path} has no column of images: expected one that is binary, or a struct with binary `bytes`; "
            f"found {', '.join(schema.names) or 'none'}"
        )
    usual = [name for name in _USUAL if name in leaves]
    if len(leaves) > 1 and not usual:
        raise DataError(f"{path} has several columns that may be images: {', '.join(leaves)}: name one of them image")
    return leaves[usual[0] if usual else next(iter(leaves))]


def _line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
