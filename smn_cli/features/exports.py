"""Features as other tools take them: a CSV table, a FAISS index, a Lance table; complete or not there."""

import csv
import os
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from smn_cli.atomic import atomic_folder, atomic_path, write_atomically
from smn_cli.errors import UsageError

NEEDED = {
    ".parquet": ("pyarrow", "parquet"),
    ".faiss": ("faiss", "scale"),
    ".lance": ("lance", "lance"),
}
"""Module and extra of smn-cli by ending."""
_LANCE_VERSIONS = "_versions"


def as_text(path: Path) -> str:
    """A path as UTF-8; bytes of a name that are none become the replacement character."""
    return os.fsencode(path).decode(errors="replace")


def paths_file(path: Path) -> Path:
    """Where the paths of a .npy or .faiss stand, one a line in the order of its rows."""
    return path.with_suffix(".paths.txt")


def write_paths(path: Path, images: Sequence[Path]) -> None:
    """Write the list of a file's images; before the file, so that features under their name have their list."""
    write_atomically(paths_file(path), b"".join(os.fsencode(image) + b"\n" for image in images))


def counted(batches: Iterator[np.ndarray], num_images: int) -> Iterator[np.ndarray]:
    """The batches, (B, F) each, as they come.

    Raises:
        ValueError: at their end, if they do not hold so many rows.
    """
    num_done = 0
    for batch in batches:
        yield batch
        num_done += len(batch)
    if num_done != num_images:
        raise ValueError(f"expected features of {num_images} images, found {num_done}")


def write_csv(path: Path, images: Sequence[Path], batches: Iterator[np.ndarray], *, is_unit: bool) -> int:
    """A header `path,f0,f1,...`, then a line an image; numbers as short as they give the same float32 again."""
    names, num_features = map(as_text, images), 0
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        for batch in counted(batches, len(images)):
            if not num_features:
                num_features = batch.shape[1]
                writer.writerow(["path", *(f"f{column}" for column in range(num_features))])
            for row in batch.astype(np.float32):
                writer.writerow([next(names), *map(str, row)])
        file.flush()
    return num_features


def write_faiss(path: Path, images: Sequence[Path], batches: Iterator[np.ndarray], *, is_unit: bool) -> int:
    """An exact flat index, whose numbers are the lines of `paths_file`; it is in memory whole until it is written.

    Args:
        path: of the index.
        images: N paths.
        batches: float32 (B, F).
        is_unit: whether rows have length 1: then the index is of inner products (cosines), else of squared distances.
    """
    import faiss

    index: Any = None
    for batch in counted(batches, len(images)):
        if index is None:
            index = (faiss.IndexFlatIP if is_unit else faiss.IndexFlatL2)(batch.shape[1])
        index.add(np.ascontiguousarray(batch, dtype=np.float32))
    with atomic_path(path) as temporary:
        faiss.write_index(index, str(temporary))
        write_paths(path, images)
    return int(index.d)


def write_lance(path: Path, images: Sequence[Path], batches: Iterator[np.ndarray], *, is_unit: bool) -> int:
    """A table, which is a folder, of the columns path (string) and features (fixed-size list of F float32)."""
    import lance
    import pyarrow

    rows, failures = counted(batches, len(images)), list[Exception]()
    first = next(rows)
    num_features, names = int(first.shape[1]), map(as_text, images)
    schema = pyarrow.schema([("path", pyarrow.string()), ("features", pyarrow.list_(pyarrow.float32(), num_features))])

    def tables() -> Iterator[Any]:
        try:
            for batch in chain([first], rows):
                values = pyarrow.array(batch.astype(np.float32).reshape(-1))
                column = pyarrow.FixedSizeListArray.from_arrays(values, num_features)
                paths = pyarrow.array([next(names) for _ in range(len(batch))], pyarrow.string())
                yield pyarrow.record_batch([paths, column], schema=schema)
        except Exception as error:  # Lance would make an error of its own of it
            failures.append(error)
            raise

    with atomic_folder(path, replaces=True) as temporary:
        try:
            lance.write_dataset(pyarrow.RecordBatchReader.from_batches(schema, tables()), str(temporary / "table"))
        except Exception as error:
            raise failures[0] if failures else error from None
        for part in list((temporary / "table").iterdir()):
            part.rename(temporary / part.name)
        (temporary / "table").rmdir()
    return num_features


def check_lance_folder(path: Path, *, overwrite: bool) -> None:
    """Refuse a place where a Lance table cannot or should not be written, before the work is done.

    Raises:
        UsageError: the folder above is missing, or something is there that may not be replaced.
    """
    if not path.absolute().parent.is_dir():
        raise UsageError(f"--out {path}: the folder {path.absolute().parent} does not exist")
    if path.exists() and not (path / _LANCE_VERSIONS).is_dir():
        raise UsageError(f"--out {path} exists and is no Lance table: choose another --out")
    if path.exists() and not overwrite:
        raise UsageError(f"--out {path} exists: --overwrite replaces it")
