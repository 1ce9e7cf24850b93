"""Rebuild an adapted network from an smn adapter with NumPy and the standard library alone.

A second implementation of docs/format.md (version 1, codecs `bits` and `lzma`), short enough to be ported to another
language. It takes the base as arrays, however they were read, and checks every digest on the way:

    adapted = rebuild(Path("adapter.safetensors").read_bytes(), base)
"""

import hashlib
import json
import lzma
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

DTYPES = {
    "float64": "<f8", "float32": "<f4", "float16": "<f2",
    "int64": "<i8", "int32": "<i4", "int16": "<i2", "int8": "i1", "uint8": "u1", "bool": "?",
}  # fmt: skip
MAX_HEADER_BYTES = 1 << 24
MAX_WEIGHTS = 1 << 40


class Refused(Exception):
    """The file cannot be used, or not over this base."""


def rebuild(data: bytes, base: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """State dict of the adapted network.

    Args:
        data: the adapter file.
        base: arrays of the pretrained network by name; what the adapter does not know (a classifier) is passed on.

    Raises:
        Refused: the file is damaged or of another kind, or this is not the base it was made for.
    """
    tensors, header = read_file(data)
    rows = tensors["base_digests"].reshape(-1, 8)
    known = {row[:4].tobytes() for row in rows}
    own = {name: array for name, array in base.items() if sha256(name.encode())[:4] in known}
    if fingerprint(own) != header["base"]["digest"]:
        raise Refused(f"this is not the base it was made for; first differing tensor: {first_difference(own, rows)}")
    adapted = dict(own)
    for name, mask in read_masks(header, tensors["mask"].tobytes(), own).items():
        scale = np.float32(math.sqrt(mask.size / int(mask.sum())))
        adapted[name] = np.where(mask, own[name] * scale, np.float32(0))
    adapted.update(read_statistics(header, tensors, own))
    if fingerprint(adapted) != header["adapted"]["digest"]:
        raise Refused("the rebuilt network is not the recorded one")
    return {**base, **adapted}


def read_file(data: bytes) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Tensors and header of a file whose checksum holds."""
    check(len(data) >= 40, "it is too short")
    check(sha256(data[:-32]) == data[-32:], "its checksum does not match")
    length = int.from_bytes(data[:8], "little")
    check(2 <= length <= min(len(data) - 40, MAX_HEADER_BYTES), "its header has no possible length")
    container = parse_json(data[8 : 8 + length].decode())
    header = parse_json(container.pop("__metadata__")["smn"])
    check(header["format"] == "smn.adapter" and header["version"] == 1, "it is not of version 1")
    tensors = {}
    for name, dtype in (("base_digests", "U8"), ("mask", "U8"), ("sha256", "U8"), ("norm_stats", "F32")):
        if name == "norm_stats" and not header["norm_stats"]:
            continue
        info = container[name]
        start, end = (8 + length + offset for offset in info["data_offsets"])
        check(8 + length <= start <= end <= len(data), f"{name} lies outside the file")
        check(info["dtype"] == dtype, f"{name} is of type {info['dtype']}")
        size = end - start
        expected = [size // 8, 8] if name == "base_digests" else [size // 4 if dtype == "F32" else size]
        check(info["shape"] == expected, f"{name} has shape {info['shape']}")
        tensors[name] = np.frombuffer(data[start:end], dtype="<f4" if dtype == "F32" else np.uint8)
    check(tensors["sha256"].tobytes() == data[-32:], "its checksum is not at its end")
    return tensors, header


def read_masks(header: dict[str, Any], payload: bytes, base: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Bool arrays by name, decoded once the shapes are known to be the base's."""
    for name, shape, _ in header["masks"]:
        check(name in base and list(base[name].shape) == shape, f"{name} does not fit the base")
    num_bits = sum(math.prod(shape) for _, shape, _ in header["masks"])
    check(num_bits <= MAX_WEIGHTS, "it promises too many weights")
    check(header["codec"] in CODECS, f"its codec {header['codec']!r} is unknown to this reader")
    bits = CODECS[header["codec"]](payload, num_bits)
    masks, start = {}, 0
    for name, shape, num_kept in header["masks"]:
        mask = bits[start : start + math.prod(shape)].reshape(shape)
        check(0 < num_kept == int(mask.sum()), f"the mask of {name} does not keep {num_kept}")
        check(name not in masks, f"{name} stands twice")
        masks[name] = mask
        start += mask.size
    return masks


def read_statistics(
    header: dict[str, Any], tensors: Mapping[str, np.ndarray], base: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Carried running means and variances by name."""
    statistics: dict[str, np.ndarray] = {}
    start = 0
    for name, length in header["norm_stats"]:
        values = tensors["norm_stats"][start : start + length]
        check(name in base and base[name].size == length == values.size, f"statistics {name} do not fit the base")
        check(name.endswith(("running_mean", "running_var")), f"{name} is no running statistic")
        check(bool(np.isfinite(values).all()), f"statistics {name} are not finite")
        statistics[name] = values.reshape(base[name].shape)
        start += length
    check(start == (tensors["norm_stats"].size if start else 0), "statistics are left over")
    return statistics


def unpack_bits(payload: bytes, num_bits: int) -> np.ndarray:
    """Codec `bits`: the first bit is the lowest of the first byte, zeros fill the last."""
    check(len(payload) == (num_bits + 7) // 8, "the mask has another length")
    bits = np.unpackbits(np.frombuffer(payload, dtype=np.uint8), bitorder="little")
    check(not bits[num_bits:].any(), "the mask has bits beyond its end")
    return bits[:num_bits].astype(bool)


def unpack_lzma(payload: bytes, num_bits: int) -> np.ndarray:
    """Codec `lzma`: one xz stream of the packed bits; never more of it is unpacked than fits."""
    num_bytes = (num_bits + 7) // 8
    decoder = lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=2 * num_bytes + (1 << 27))
    try:
        packed = decoder.decompress(payload, max_length=num_bytes + 1)
    except lzma.LZMAError as error:
        raise Refused(f"the mask is not valid xz data: {error}") from None
    check(decoder.eof and not decoder.unused_data, "the mask does not end where it should")
    return unpack_bits(packed, num_bits)


CODECS: dict[str, Callable[[bytes, int], np.ndarray]] = {"bits": unpack_bits, "lzma": unpack_lzma}


def fingerprint(state: Mapping[str, np.ndarray]) -> str:
    """SHA-256 over the digests of all tensors by sorted name, counters of batches left out."""
    names = sorted(name for name in state if not name.endswith("num_batches_tracked"))
    return sha256(b"".join(tensor_digest(name, state[name]) for name in names)).hex()


def tensor_digest(name: str, array: np.ndarray) -> bytes:
    """SHA-256 of name, type, shape and little-endian values in row-major order."""
    kind = array.dtype.name
    head = f"{name}\0{kind}\0{'x'.join(map(str, array.shape))}\0".encode()
    return sha256(head + array.astype(DTYPES[kind], order="C", copy=False).tobytes())


def first_difference(own: Mapping[str, np.ndarray], rows: np.ndarray) -> str:
    """Name of the first tensor whose digest is not in the file's list."""
    listed = {row.tobytes() for row in rows}
    for name in sorted(own):
        if sha256(name.encode())[:4] + tensor_digest(name, own[name])[:4] not in listed:
            return name
    return "one that is missing"


def parse_json(text: str) -> Any:
    """JSON in which no key stands twice."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        check(len({key for key, _ in pairs}) == len(pairs), "a key stands twice")
        return dict(pairs)

    return json.loads(text, object_pairs_hook=unique)


def sha256(data: bytes) -> bytes:
    """The 32 bytes of it."""
    return hashlib.sha256(data).digest()


def check(holds: bool, otherwise: str) -> None:
    """Refuse the file, saying why."""
    if not holds:
        raise Refused(otherwise)
