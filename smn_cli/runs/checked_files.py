"""Files that end in the SHA-256 of all before: written whole or not at all, never trusted when damaged.

Neither writing nor reading holds a large file in memory; tensors of one are mapped into it.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor

from smn_cli.atomic import atomic_path
from smn_cli.errors import CheckpointError
from smn_cli.recognise import check_regular

MAPPED_FROM_BYTES = 1_000_000_000
"""Of a file of tensors; a smaller one is read."""
_DIGEST_BYTES = 32
_PIECE = 1 << 22
_DTYPES: dict[str, type[np.generic]] = {
    "F64": np.float64, "F32": np.float32, "F16": np.float16, "I64": np.int64, "I32": np.int32, "U8": np.uint8
}  # fmt: skip
"""Those that numpy can map; a file with another one is read."""


@contextmanager
def fitting(path: Path) -> Iterator[None]:
    """Use what the files of a run hold in the block: what does not go together there is told as their damage.

    Checksums find what happened to a file, not what somebody wrote into it.

    Raises:
        CheckpointError: anything but a documented error, or a want of memory, came up.
    """
    try:
        yield
    except (AttributeError, ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
        reason = (str(error) or "no reason given").splitlines()[0]
        is_other = isinstance(error, torch.OutOfMemoryError) or reason.startswith("DataLoader worker")
        if is_other:
            raise
        what = f"{type(error).__name__}: {reason}"
        raise CheckpointError(f"{path} does not fit its own settings ({what:.200}): start the run again") from error


def write_checked(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a file, and put its digest at the end; the whole appears under its name or not at all."""
    with atomic_path(path) as temporary:
        write(temporary)
        digest = _digest(temporary, temporary.stat().st_size)
        with temporary.open("ab") as file:
            file.write(digest)


def check_file(path: Path) -> None:
    """Refuse a file that is not as it was written.

    Raises:
        CheckpointError: it is missing or damaged.
    """
    if (reason := check_regular(path)) is not None:
        raise CheckpointError(f"{path} {reason}")
    try:
        size_bytes = path.stat().st_size - _DIGEST_BYTES
        found = _digest(path, max(size_bytes, 0))
        with path.open("rb") as file:
            file.seek(max(size_bytes, 0))
            recorded = file.read()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror}): start the run again") from None
    if found != recorded:
        raise CheckpointError(f"{path} is damaged (its checksum does not match): start the run again")


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write named tensors as a safetensors file with a digest."""
    write_checked(path, lambda temporary: save_file({k: v.contiguous() for k, v in tensors.items()}, temporary))


def read_tensors(path: Path) -> dict[str, Tensor]:
    """What `write_tensors` wrote; of a large file mapped, so that it takes memory only where it is changed.

    Raises:
        CheckpointError: it is missing or damaged.
    """
    check_file(path)
    if path.stat().st_size >= MAPPED_FROM_BYTES and os.name != "nt":  # there no mapped file can be moved
        mapped = _mapped(path)
        if mapped is not None:
            return mapped
    try:
        with path.open("rb") as file:
            return load(file.read(path.stat().st_size - _DIGEST_BYTES))
    except SafetensorError as error:
        raise CheckpointError(f"{path} is damaged: {error}: start the run again") from None


def recorded_digest(path: Path) -> str:
    """The digest at the end of a file, 64 hex characters; whoever reads the file compares it."""
    with path.open("rb") as file:
        file.seek(max(path.stat().st_size - _DIGEST_BYTES, 0))
        return file.read().hex()


def _mapped(path: Path) -> dict[str, Tensor] | None:
    """Private maps of a safetensors file's tensors; None if it has some that cannot be."""
    with path.open("rb") as file:
        header_bytes = int.from_bytes(file.read(8), "little")
        header: dict[str, Any] = json.loads(file.read(header_bytes))
    header.pop("__metadata__", None)
    if any(entry["dtype"] not in _DTYPES or 0 in entry["shape"] for entry in header.values()):
        return None
    return {
        name: torch.from_numpy(
            np.memmap(
                path,
                dtype=_DTYPES[entry["dtype"]],
                mode="c",
                offset=8 + header_bytes + entry["data_offsets"][0],
                shape=tuple(entry["shape"]),
            )
        )
        for name, entry in header.items()
    }


def _digest(path: Path, size_bytes: int) -> bytes:
    """SHA-256 of a file's first bytes."""
    digest, left = hashlib.sha256(), size_bytes
    with path.open("rb") as file:
        while left and (piece := file.read(min(left, _PIECE))):
            digest.update(piece)
            left -= len(piece)
    return digest.digest()
