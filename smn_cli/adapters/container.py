"""The container of adapter and cascade files: a safetensors file that ends in the SHA-256 of all bytes before.

Its header is one JSON text in one metadata key.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
from safetensors.numpy import save

from smn_cli.adapters.fields import no_duplicates
from smn_cli.errors import AdapterFileError
from smn_cli.hub import MAX_FILE_BYTES, local_file
from smn_cli.recognise import CASCADE_TENSOR, METADATA_KEY, check_regular, kind_of_bytes

_DIGEST_BYTES = 32
_MAX_CONTAINER_BYTES = 1 << 24


def seal(tensors: Mapping[str, np.ndarray], header: str) -> bytes:
    """A file's bytes, a function of tensors and header alone.

    Args:
        tensors: by name; of those of one byte a value, none is called something after "sha256".
        header: the text of the metadata.
    """
    # safetensors sorts by alignment, then by name: sha256 comes last
    contents = {**tensors, "sha256": np.zeros(_DIGEST_BYTES, dtype=np.uint8)}
    blank = save(contents, metadata={METADATA_KEY: header})
    body = blank[:-_DIGEST_BYTES]
    if blank[-_DIGEST_BYTES:] != bytes(_DIGEST_BYTES):
        raise AssertionError("safetensors no longer puts sha256 last")
    return body + hashlib.sha256(body).digest()


def read_bytes(path: str | Path) -> bytes:
    """A whole file, local or at an address of the hub (hf://USER/NAME).

    Raises:
        AdapterFileError: it cannot be read.
        HubError: it cannot be fetched.
    """
    local = local_file(path)
    if (reason := check_regular(local)) is not None:
        raise AdapterFileError(f"{path} {reason}")
    try:
        with local.open("rb") as file:
            return file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise AdapterFileError(f"{path} cannot be read: {error.strerror or error}") from None


def unseal(
    data: bytes, kinds: Mapping[str, str], *, optional: Sequence[str] = (), what: str = "an adapter"
) -> tuple[dict[str, dict[str, Any]], str]:
    """Tensors and header text of a file's bytes, once nothing is missing or altered.

    Args:
        data: the whole file.
        kinds: type of each tensor that is known, by name.
        optional: those of them that may be absent.
        what: "an adapter" or "a cascade".

    Returns:
        For each tensor its `dtype`, `shape` and `data`, unknown ones too; the text.

    Raises:
        AdapterFileError: truncated, altered, no such file, or tensors of other types.
    """
    if len(data) > MAX_FILE_BYTES:
        raise AdapterFileError(f"it is larger than 4 GiB: it is not {what}")
    if len(data) < 8 + _DIGEST_BYTES:
        raise AdapterFileError(f"{len(data)} bytes are too few for {what}; it is empty or truncated")
    if hashlib.sha256(data[:-_DIGEST_BYTES]).digest() != data[-_DIGEST_BYTES:]:
        kind = kind_of_bytes(data)
        if kind is not None and not kind.startswith(("an adapter", "a cascade")):  # these two are told apart below
            raise AdapterFileError(f"expected {what}: it is {kind}")
        raise AdapterFileError(f"it is not {what}, or was truncated or altered (its checksum does not match)")
    tensors = _tensors(data)
    if what == "an adapter" and CASCADE_TENSOR in tensors and "mask" not in tensors:
        raise AdapterFileError(
            "it is a cascade: expected an adapter; smn inspect, verify, eval, embed and apply with `expert` take "
            "cascades"
        )
    if what == "a cascade" and CASCADE_TENSOR not in tensors and "mask" in tensors:
        raise AdapterFileError("it is an adapter: expected a cascade; an adapter is taken without `expert`")
    for name in (*kinds, "sha256"):
        if name not in tensors and name not in optional:
            raise AdapterFileError(f"it lacks the tensor {name!r}")
    for name, kind in {**kinds, "sha256": "U8"}.items():
        if name in tensors and tensors[name]["dtype"] != kind:
            raise AdapterFileError(f"the tensor {name!r} is of type {tensors[name]['dtype']}: expected {kind}")
    for name in ("mask", "norm_stats"):
        if name in tensors and len(tensors[name]["shape"]) != 1:
            raise AdapterFileError(f"the tensor {name!r} has {len(tensors[name]['shape'])} dimensions: expected one")
    if tensors["sha256"]["shape"] != [_DIGEST_BYTES] or bytes(tensors["sha256"]["data"]) != data[-_DIGEST_BYTES:]:
        raise AdapterFileError("its checksum is not at its end")
    return tensors, _metadata(data, what)


def _metadata(data: bytes, what: str) -> str:
    """The one metadata entry; safetensors' own reader gives it for files only, not for bytes."""
    length = int.from_bytes(data[:8], "little")
    try:
        container = json.loads(data[8 : 8 + length], object_pairs_hook=no_duplicates)
        text = container["__metadata__"][METADATA_KEY]
    except (ValueError, RecursionError, KeyError, TypeError):
        text = None
    if not isinstance(text, str):
        raise AdapterFileError(f"it has no {METADATA_KEY!r} metadata: it is not {what}")
    return text


def _tensors(data: bytes) -> dict[str, dict[str, Any]]:
    length = int.from_bytes(data[:8], "little")
    if not 2 <= length <= min(len(data) - 8 - _DIGEST_BYTES, _MAX_CONTAINER_BYTES):
        raise AdapterFileError("its safetensors header has no possible length")
    try:
        return dict(safetensors.deserialize(data))  # type: ignore[no-untyped-call]
    except safetensors.SafetensorError as error:
        raise AdapterFileError(f"it is not a valid safetensors file: {error}") from None
