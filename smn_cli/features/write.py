"""Features of images in a file: .npy with a list of the paths beside it, or .parquet; complete or not there."""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType

import numpy as np
from torch import Tensor

from smn_cli.atomic import atomic_path, write_atomically
from smn_cli.errors import DataError, UsageError

SUFFIXES = (".npy", ".parquet")
_ROWS_OF_GROUP = 8192
"""Rows of a row group in parquet: what is in memory at a time."""


def paths_file(path: Path) -> Path:
    """Where the paths of a .npy stand, one a line in the order of its rows."""
    return path.with_suffix(".paths.txt")


def check_feature_file(path: Path, images: Sequence[Path]) -> None:
    """Refuse, before the work is done, a file that cannot hold these images' features.

    Raises:
        UsageError: the ending is none of `SUFFIXES`, or pyarrow, which parquet needs, is not installed.
        DataError: a path holds a line break, so that a list of paths would be ambiguous.
    """
    if path.suffix not in SUFFIXES:
        raise UsageError(f"`out` {path}: expected a name ending in {' or '.join(SUFFIXES)}")
    if path.suffix == ".parquet":
        _pyarrow(path)
        return
    for image in images:
        if "\n" in str(image) or "\r" in str(image):
            raise DataError(
                f"{str(image)!r} holds a line break, which a list of paths cannot: rename it, or use .parquet"
            )


def write_features(path: Path, images: Sequence[Path], batches: Iterable[Tensor]) -> int:
    """Write features as they come; never more than a part of them is in memory.

    Args:
        path: of the file; its ending decides on the format. `.npy` is float32 (N, F), and `paths_file` its list;
            `.parquet` has the columns path (string) and features (fixed-size list of F float32).
        images: N paths.
        batches: float32 (B, F) on the CPU, N rows in all.

    Returns:
        F.

    Raises:
        ValueError: the batches do not hold N rows.
        OSError: the folder is missing or not writable.
    """
    write = _write_parquet if path.suffix == ".parquet" else _write_npy
    return write(path, images, (batch.numpy() for batch in batches))


def _write_npy(path: Path, images: Sequence[Path], batches: Iterator[np.ndarray]) -> int:
    with atomic_path(path) as temporary:
        rows: np.memmap | None = None
        num_done = 0
        for batch in batches:
            if rows is None:
                shape = (len(images), batch.shape[1])
                rows = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.float32, shape=shape)
            rows[num_done : num_done + len(batch)] = batch
            num_done += len(batch)
        if rows is None or num_done != len(images):
            raise ValueError(f"expected features of {len(images)} images, found {num_done}")
        rows.flush()
        # first, so that features under their name have their list
        write_atomically(paths_file(path), b"".join(os.fsencode(image) + b"\n" for image in images))
        return int(rows.shape[1])


def _write_parquet(path: Path, images: Sequence[Path], batches: Iterator[np.ndarray]) -> int:
    pyarrow = _pyarrow(path)
    import pyarrow.parquet as parquet

    num_done = num_features = 0
    with atomic_path(path) as temporary, ExitStack() as stack:
        writer = None
        for rows in _regrouped(batches):
            num_features = rows.shape[1]
            values = pyarrow.array(rows.reshape(-1))
            column = pyarrow.FixedSizeListArray.from_arrays(values, num_features)
            names = [_as_text(image) for image in images[num_done : num_done + len(rows)]]
            table = pyarrow.table({"path": pyarrow.array(names, pyarrow.string()), "features": column})
            if writer is None:
                writer = stack.enter_context(parquet.ParquetWriter(temporary, table.schema, use_dictionary=False))
            writer.write_table(table)
            num_done += len(rows)
        if num_done != len(images):
            raise ValueError(f"expected features of {len(images)} images, found {num_done}")
        stack.close()
    return num_features


def _regrouped(batches: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """The same rows in groups of at least `_ROWS_OF_GROUP`, but for the last."""
    held: list[np.ndarray] = []
    for batch in batches:
        held.append(batch)
        if sum(map(len, held)) >= _ROWS_OF_GROUP:
            yield np.concatenate(held)
            held = []
    if held:
        yield np.concatenate(held)


def _as_text(path: Path) -> str:
    """A path as UTF-8; bytes of a name that are none become the replacement character."""
    return os.fsencode(path).decode(errors="replace")


def _pyarrow(path: Path) -> ModuleType:
    try:
        import pyarrow
    except ImportError:
        raise UsageError(
            f"`out` {path}: parquet needs pyarrow, which is not installed: pip install 'smn-cli[parquet]', or use .npy"
        ) from None
    module: ModuleType = pyarrow
    return module
