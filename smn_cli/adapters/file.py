"""The adapter file on disk: a safetensors file whose last 32 bytes are the SHA-256 of all bytes before them.

Anyone can open it with the safetensors library; whoever checks the end first knows that nothing was altered or cut.
"""

from pathlib import Path
from typing import Any

import numpy as np

from smn_cli.adapters.codecs import CODECS
from smn_cli.adapters.container import read_bytes, seal, unseal
from smn_cli.adapters.fingerprint import ROW_BYTES, Fingerprint
from smn_cli.adapters.head import LEVELS, StoredHead
from smn_cli.adapters.readout import StoredReadout, read_readout
from smn_cli.adapters.schema import HeadEntry, Header, parse_header
from smn_cli.errors import AdapterFileError, first_few

_HEAD_TENSORS = {"head_levels": ("I8", "<i1"), "head_scales": ("F32", "<f4"), "head_bias": ("F32", "<f4")}
_TENSORS = {"base_digests": "U8", "mask": "U8", "norm_stats": "U16"}


class AdapterContent:
    """The parts of an adapter file as they stand in it.

    Attributes:
        header: the parsed header.
        base_rows: (num_tensors, 8) uint8 of the base's fingerprint.
        payload: the mask's bytes, as the codec left them.
        norm_stats: (sum of lengths,) uint16, the upper halves of the float32 values.
        head: the carried classifier; None if there is none.
        readout: the carried readout; None if there is none.
    """

    def __init__(
        self,
        header: Header,
        base_rows: np.ndarray,
        payload: bytes,
        norm_stats: np.ndarray,
        head: StoredHead | None = None,
        readout: StoredReadout | None = None,
    ) -> None:
        self.header = header
        self.base_rows = base_rows
        self.payload = payload
        self.norm_stats = norm_stats
        self.head = head
        self.readout = readout

    def to_bytes(self) -> bytes:
        """The file's bytes, a function of the content alone."""
        tensors: dict[str, np.ndarray] = {
            "base_digests": np.ascontiguousarray(self.base_rows),
            "mask": np.frombuffer(self.payload, dtype=np.uint8),
        }
        if self.norm_stats.size:
            tensors["norm_stats"] = np.ascontiguousarray(self.norm_stats, dtype=np.uint16)
        for part in (self.head, self.readout):
            if part is not None:
                tensors |= {name: np.ascontiguousarray(array) for name, array in part.arrays().items()}
        return seal(tensors, self.header.to_json())


def parse_adapter(data: bytes, *, source: str) -> AdapterContent:
    """Content of a file's bytes.

    Args:
        data: the whole file.
        source: its path or name, for messages.

    Raises:
        AdapterFileError: one line naming `source` and what is wrong with it.
    """
    try:
        return _parse(data)
    except AdapterFileError as error:
        raise AdapterFileError(f"{source} cannot be used: {error}") from None


def read_adapter(path: str | Path) -> AdapterContent:
    """Read and check a file.

    Raises:
        AdapterFileError: it is missing, not an adapter, truncated or altered.
    """
    return parse_adapter(read_bytes(path), source=str(path))


def _parse(data: bytes) -> AdapterContent:
    tensors, text = unseal(data, _TENSORS, optional=("norm_stats",))
    header = parse_header(text)
    rows = tensors["base_digests"]
    if rows["shape"] != [len(rows["data"]) // ROW_BYTES, ROW_BYTES] or not rows["data"]:
        raise AdapterFileError(f"base_digests has shape {rows['shape']}: expected rows of {ROW_BYTES}")
    norm_stats: np.ndarray = (
        np.frombuffer(tensors["norm_stats"]["data"], dtype="<u2") if "norm_stats" in tensors else np.zeros(0)
    )
    if norm_stats.size != sum(length for _, length in header.norm_stats):
        raise AdapterFileError(f"{norm_stats.size} statistics do not fit the header's list of them")
    norm_stats = norm_stats.astype(np.uint16)
    if ((norm_stats & 0x7F80) == 0x7F80).any():
        raise AdapterFileError("its normalisation statistics are not all finite numbers")
    if header.codec not in CODECS:
        raise AdapterFileError(f"codec {header.codec!r:.40} is unknown to this smn: update smn-cli")
    if header.needs_base != CODECS[header.codec].needs_base:
        raise AdapterFileError(f"the header says needs_base {header.needs_base}, which codec {header.codec} does not")
    base_rows = np.frombuffer(rows["data"], dtype=np.uint8).reshape(-1, ROW_BYTES)
    _check_names(header, base_rows)
    head = None if header.head is None else _head(header.head, tensors)
    readout = None if header.readout is None else read_readout(header.readout, tensors)
    return AdapterContent(header, base_rows, bytes(tensors["mask"]["data"]), norm_stats, head, readout)


def _head(entry: HeadEntry, tensors: dict[str, dict[str, Any]]) -> StoredHead:
    """The classifier, its tensors held against the header before anything is made of them."""
    num_classes = len(entry.classes)
    shapes = {
        "head_levels": [num_classes, entry.num_features],
        "head_scales": [num_classes],
        "head_bias": [num_classes],
    }
    arrays = []
    for name, (kind, dtype) in _HEAD_TENSORS.items():
        if name not in tensors:
            raise AdapterFileError(f"the header has a head, but the tensor {name!r} is missing")
        found = tensors[name]
        if found["dtype"] != kind or found["shape"] != shapes[name]:
            raise AdapterFileError(
                f"the tensor {name!r} is {found['dtype']} {found['shape']}: the head is {kind} {shapes[name]}"
            )
        arrays.append(np.frombuffer(found["data"], dtype=dtype).reshape(shapes[name]).astype(dtype[1:]))
    levels, scales, bias = arrays
    with np.errstate(over="ignore", invalid="ignore"):  # a signalling NaN is invalid in any product
        is_finite = np.isfinite(scales * np.float32(LEVELS)).all() and np.isfinite(bias).all()
    if not is_finite or (scales < 0).any() or (levels < -LEVELS).any():
        raise AdapterFileError(
            "its head holds scales that are negative, levels below -127 or numbers that are not finite"
        )
    return StoredHead(entry.name, entry.classes, levels, scales, bias)


def _check_names(header: Header, base_rows: np.ndarray) -> None:
    """What an adapter changes must be part of the base, or no digest would cover it."""
    masked, carried = [entry.name for entry in header.masks], [name for name, _ in header.norm_stats]
    if set(masked) & set(carried):
        raise AdapterFileError("the header lists a tensor under both masks and norm_stats")
    base = Fingerprint(header.base_digest, base_rows)
    parts = [] if header.head is None else [f"{header.head.name}.{part}" for part in ("weight", "bias")]
    if any(base.has(name) for name in parts):
        raise AdapterFileError(f"the header puts a head in the place of {parts[0]}, which is part of its base")
    strangers = [name for name in (*masked, *carried) if not base.has(name)]
    if strangers:
        raise AdapterFileError(f"the header changes tensors that its base does not have: {first_few(strangers)}")
