"""Features of images in a file of any format that smn knows, by its ending; complete or not there."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from torch import Tensor

from smn_cli.atomic import atomic_path
from smn_cli.config.option import any_of
from smn_cli.errors import DataError, UsageError
from smn_cli.features.exports import NEEDED, as_text, counted, write_csv, write_faiss, write_lance, write_paths

SUFFIXES = (".npy", ".parquet", ".csv", ".faiss", ".lance")
LISTED = (".npy", ".faiss")
"""Endings of files that hold no paths: these stand in `paths_file`."""
_ROWS_OF_GROUP = 8192
"""Rows of a row group in parquet: what is in memory at a time."""


def check_feature_file(path: Path, images: Sequence[Path]) -> None:
    """Refuse, before the work is done, a file that cannot hold these images' features.

    Raises:
        UsageError: the ending is none of `SUFFIXES`, or the package that it needs is not installed.
        DataError: a path holds a line break, so that a list of paths would be ambiguous.
    """
    if path.suffix not in SUFFIXES:
        raise UsageError(f"`out` {path}: expected a name ending in {any_of(SUFFIXES)}")
    module, extra = NEEDED.get(path.suffix, ("", ""))
    if module and find_spec(module) is None:
        raise UsageError(f"`out` {path} needs {module}: pip install 'smn-cli[{extra}]', or use .npy")
    for image in images if path.suffix in LISTED else ():
        if "\n" in str(image) or "\r" in str(image):
            raise DataError(
                f"{str(image)!r} holds a line break, which a list of paths cannot: rename it, or use .parquet or .csv"
            )


def write_features(path: Path, images: Sequence[Path], batches: Iterable[Tensor], *, is_unit: bool = False) -> int:
    """Write features as they come; but for a `.faiss`, never more than a part of them is in memory.

    Args:
        path: of the file; its ending decides on the format. `.npy` is float32 (N, F), and `paths_file` its list;
            `.parquet` and `.lance` have the columns path (string) and features (fixed-size list of F float32);
            `.csv` and `.faiss` are described in `smn_cli.features.exports`.
        images: N paths.
        batches: float32 (B, F) on the CPU, N rows in all.
        is_unit: whether rows have length 1, which decides what a FAISS index compares by.

    Returns:
        F.

    Raises:
        ValueError: the batches do not hold N rows.
        OSError: the folder is missing or not writable.
    """
    writers = {
        ".npy": _write_npy,
        ".parquet": _write_parquet,
        ".csv": write_csv,
        ".faiss": write_faiss,
        ".lance": write_lance,
    }
    return writers[path.suffix](path, images, (batch.numpy() for batch in batches), is_unit=is_unit)


def _write_npy(path: Path, images: Sequence[Path], batches: Iterator[np.ndarray], *, is_unit: bool) -> int:
    with atomic_path(path) as temporary:
        num_features = 0
        with temporary.open("wb") as file:  # not mapped: where the disk is full, that ends the process with a signal
            for batch in counted(batches, len(images)):
                if not num_features:
                    num_features = int(batch.shape[1])
                    shape = (len(images), num_features)
                    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
                    np.lib.format.write_array_header_1_0(file, header)
                file.write(np.ascontiguousarray(batch, dtype="<f4").data)
        write_paths(path, images)
    return num_features


def _write_parquet(path: Path, images: Sequence[Path], batches: Iterator[np.ndarray], *, is_unit: bool) -> int:
    import pyarrow
    import pyarrow.parquet as parquet

    num_done = num_features = 0
    with atomic_path(path) as temporary, ExitStack() as stack:
        writer = None
        for rows in _regrouped(batches):
            num_features = rows.shape[1]
            values = pyarrow.array(rows.reshape(-1))
            column = pyarrow.FixedSizeListArray.from_arrays(values, num_features)
            names = [as_text(image) for image in images[num_done : num_done + len(rows)]]
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
