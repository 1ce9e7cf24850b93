"""Rebuild an adapted network from an smn adapter with NumPy and the standard library alone.

A second implementation of docs/format.md (version 1, all its codecs), short enough to be ported to another language;
`context` goes bit by bit in Python here, a minute for three million weights. It takes the base as arrays, however they
were read, and checks every digest on the way:

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
MAX64 = (1 << 64) - 1
Params = tuple[np.ndarray, np.ndarray]


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
    rows = tensors["base_digests"].reshape(-1, 4)
    known = {row[:3].tobytes() for row in rows}
    own = {name: array for name, array in base.items() if sha256(name.encode())[:3] in known}
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
    for name, dtype in (("base_digests", "U8"), ("mask", "U8"), ("sha256", "U8"), ("norm_stats", "U16")):
        if name == "norm_stats" and not header["norm_stats"]:
            continue
        info = container[name]
        start, end = (8 + length + offset for offset in info["data_offsets"])
        check(8 + length <= start <= end <= len(data), f"{name} lies outside the file")
        check(info["dtype"] == dtype, f"{name} is of type {info['dtype']}")
        size = end - start
        expected = [size // 4, 4] if name == "base_digests" else [size // 2 if dtype == "U16" else size]
        check(info["shape"] == expected, f"{name} has shape {info['shape']}")
        tensors[name] = np.frombuffer(data[start:end], dtype="<u2" if dtype == "U16" else np.uint8)
    check(tensors["sha256"].tobytes() == data[-32:], "its checksum is not at its end")
    return tensors, header


def read_masks(header: dict[str, Any], payload: bytes, base: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Bool arrays by name, decoded once the shapes are known to be the base's."""
    for name, shape, _ in header["masks"]:
        check(name in base and list(base[name].shape) == shape, f"{name} does not fit the base")
    num_bits = sum(math.prod(shape) for _, shape, _ in header["masks"])
    check(num_bits <= MAX_WEIGHTS, "it promises too many weights")
    check(header["codec"] in CODECS, f"its codec {header['codec']!r} is unknown to this reader")
    needs_base = header["codec"] in ("context", "context2")
    check(header["needs_base"] is needs_base, "needs_base is not what the codec needs")
    bits = CODECS[header["codec"]](payload, num_bits, [base[name] for name, _, _ in header["masks"]])
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
        halves = tensors["norm_stats"][start : start + length]
        values = (halves.astype(np.uint32) << 16).view(np.float32)
        check(name in base and base[name].size == length == values.size, f"statistics {name} do not fit the base")
        check(name.endswith(("running_mean", "running_var")), f"{name} is no running statistic")
        check(bool(np.isfinite(values).all()), f"statistics {name} are not finite")
        statistics[name] = values.reshape(base[name].shape)
        start += length
    check(start == (tensors["norm_stats"].size if start else 0), "statistics are left over")
    return statistics


def unpack_bits(payload: bytes, num_bits: int, _: list[np.ndarray]) -> np.ndarray:
    """Codec `bits`: the first bit is the lowest of the first byte, zeros fill the last."""
    check(len(payload) == (num_bits + 7) // 8, "the mask has another length")
    bits = np.unpackbits(np.frombuffer(payload, dtype=np.uint8), bitorder="little")
    check(not bits[num_bits:].any(), "the mask has bits beyond its end")
    return bits[:num_bits].astype(bool)


def unpack_lzma(payload: bytes, num_bits: int, base: list[np.ndarray]) -> np.ndarray:
    """Codec `lzma`: one xz stream of the packed bits; never more of it is unpacked than fits."""
    num_bytes = (num_bits + 7) // 8
    decoder = lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=2 * num_bytes + (1 << 27))
    try:
        packed = decoder.decompress(payload, max_length=num_bytes + 1)
    except lzma.LZMAError as error:
        raise Refused(f"the mask is not valid xz data: {error}") from None
    check(decoder.eof and not decoder.unused_data, "the mask does not end where it should")
    return unpack_bits(packed, num_bits, base)


def unpack_context(payload: bytes, num_bits: int, base: list[np.ndarray], second: bool = False) -> np.ndarray:
    """Codec `context`: a model of additive logits, a Newton step after every block, a range decoder."""
    told = len(base) * (1 + second)
    has_words = 0 <= len(payload) - told <= 4 * (num_bits + 2) and (len(payload) - told) % 4 == 0
    check(has_words, "the mask has an impossible length")
    decoder = RangeDecoder(payload[told:])
    kept = [np.ones(weights.size, dtype=bool) for weights in base]
    curve = parameters(320, 0 if second else -98304, 2)
    for position in sorted(range(len(base)), key=lambda position: -base[position].size):
        num_coded = base[position].size * payload[position] // 255
        rate = payload[len(base) + position] if second else None
        decode_tensor(base[position], kept[position], num_coded, curve, decoder, rate)
    check(decoder.is_used_up(), "the mask does not end where it should")
    return np.concatenate(kept)


def unpack_context2(payload: bytes, num_bits: int, base: list[np.ndarray]) -> np.ndarray:
    """Codec `context2`: the same with a rate for each tensor and eight pairs."""
    return unpack_context(payload, num_bits, base, second=True)


def decode_tensor(
    weights: np.ndarray, kept: np.ndarray, num_coded: int, curve: Params, decoder: "RangeDecoder", rate: int | None
) -> None:
    """Write one tensor's bits into `kept`; it has a rate in `context2` only."""
    pattern = weights.astype(np.float32).reshape(-1).view(np.uint32).astype(np.int64)
    magnitude, sign = pattern >> 16 & 0x7FFF, 1 - 2 * (pattern >> 31)
    order = np.argsort(magnitude, kind="stable")
    level = np.clip(magnitude - magnitude[order[kept.size // 2]] + 30 * 128, 0, 40 * 128 - 1)
    rows = weights.shape[0] if weights.ndim else 1
    columns = kept.size // rows
    row, column = np.divmod(np.arange(kept.size), columns)
    plain = [(curve, level >> 4), (parameters(80, 0, 4), level >> 6)]
    plain += [(parameters(rows, 0, 3), row), (parameters(columns, 0, 3), column)]
    pairs = [first_pair(number, rows, columns) for number in range(2 if rate is None else 8)]
    told, share = (0, 16) if rate is None else ((64 - rate) * 16, 15)
    flat = rate is not None and 1 in (rows, columns)
    start, quiet = 0, flat
    while start < num_coded:
        size = max(64, min(start >> 3, kept.size >> 8))
        at = order[start : min(start + size, num_coded)]
        used = plain[:2] if quiet else plain
        logit = told + sum((values >> 8)[where[at]] for (values, _), where in used)
        shown = [] if quiet else [((left[0] >> 8), (right[0] >> 8)) for left, right in pairs]
        for left, right in shown:
            logit = logit + (left[row[at]] * right[column[at]] >> 8) * sign[at]
        chance = np.array([SQUASH[value] for value in np.clip(logit, -2816, 2816) + 2816])
        cut = np.array([decoder.decode(int(value)) for value in chance])
        kept[at] = cut == 0
        error, spread = cut * 65536 - chance, chance * (65536 - chance) >> 16
        sums = [[total(where[at], amount, len(p[0])) for amount in (error, spread)] for p, where in used]
        for number, ((parameter, _), (gradient, curvature)) in enumerate(zip(used, sums, strict=True)):
            step(parameter, gradient, curvature, share if number < 2 else 16)
        for (left, right), (a, b) in zip(pairs, shown, strict=False):
            up = total(row[at], error * sign[at] * b[column[at]], rows) >> 8
            across = total(column[at], error * sign[at] * a[row[at]], columns) >> 8
            step(left, up, sums[2][1] * (int((b * b).sum()) // columns) >> 16)
            step(right, across, sums[3][1] * (int((a * a).sum()) // rows) >> 16)
        quiet = flat or int(cut.sum()) * 512 < len(at)
        start += len(at)


def parameters(length: int, value: int, prior: int) -> Params:
    """Values in 1/2^16 nat and the curvature that each has seen."""
    return np.full(length, value, dtype=np.int64), np.full(length, prior << 16, dtype=np.int64)


def first_pair(number: int, rows: int, columns: int) -> tuple[Params, Params]:
    """Factors as they start: of the even pairs those of the rows are 0, of the odd ones those of the columns."""
    length = rows if number % 2 else columns
    moved = parameters(length, 16384, 1)
    if number > 1:
        moved[0][(np.arange(length) >> (number - 2)) % 2 == 0] = -16384
    return (moved, parameters(columns, 0, 1)) if number % 2 else (parameters(rows, 0, 1), moved)


def step(parameter: Params, gradient: np.ndarray, curvature: np.ndarray, share: int = 16) -> None:
    """Newton's, in place, or 2^share / 2^16 of it."""
    values, seen = parameter
    seen += curvature
    values[:] = np.clip(values + (gradient << share) // seen, -8 << 16, 8 << 16)


def total(places: np.ndarray, amounts: np.ndarray, length: int) -> np.ndarray:
    """Sum of integers by place."""
    sums = np.zeros(length, dtype=np.int64)
    np.add.at(sums, places, amounts)
    return sums


def squash() -> list[int]:
    """Probability of a cut, times 2^16, for logits of -2816 to 2816."""
    power, falling = 1 << 32, []
    for _ in range(2817):
        falling.append(max(1, (65536 * power + ((1 << 32) + power) // 2) // ((1 << 32) + power)))
        power = power * 4278222805 >> 32
    return falling[:0:-1] + [65536 - value for value in falling]


SQUASH = squash()


class RangeDecoder:
    """Range decoder with 64 bits of state and words of 32; bits with a probability of k / 2^16 each."""

    def __init__(self, data: bytes) -> None:
        self.words = [int.from_bytes(data[at : at + 4], "little") for at in range(0, len(data), 4)]
        self.lower, self.range, self.point, self.used = 0, MAX64, 0, 0
        for _ in range(2):
            self._shift()

    def decode(self, chance: int) -> int:
        """The next bit, which is 1 with a probability of chance / 2^16."""
        zero = ((65536 - chance) * (2**24 - 2) >> 16) + 1
        scale = self.range >> 24
        place = ((self.point - self.lower) & MAX64) // scale
        check(place < 1 << 24, "the mask does not decode over this base")
        bit = int(place >= zero)
        self.lower = (self.lower + bit * scale * zero) & MAX64
        self.range = scale * (2**24 - zero if bit else zero)
        if self.range < 1 << 32:
            self.lower, self.range = self.lower << 32 & MAX64, self.range << 32
            self._shift()
        return bit

    def is_used_up(self) -> bool:
        """Whether all words were read and stand for the end of the range, as a writer's do."""
        is_at_end = self.range == MAX64 or (self.point - self.lower) & MAX64 < 2**33 - 1
        return self.used >= len(self.words) and is_at_end

    def _shift(self) -> None:
        word = self.words[self.used] if self.used < len(self.words) else 0
        self.point, self.used = (self.point << 32 | word) & MAX64, self.used + 1


CODECS: dict[str, Callable[[bytes, int, list[np.ndarray]], np.ndarray]] = {
    "bits": unpack_bits,
    "lzma": unpack_lzma,
    "context": unpack_context,
    "context2": unpack_context2,
}


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
        if sha256(name.encode())[:3] + tensor_digest(name, own[name])[:1] not in listed:
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
