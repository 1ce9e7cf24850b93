"""Masks to bytes and back: one stream for all tensors of a file (docs/format.md, "Codecs").

A codec is a pair of pure functions. `decode` is only called once the shapes are known to be those of a real base, so
what it allocates is bounded by that base; a codec that needs the base is given its weights as well.
"""

import lzma
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from bitarray import bitarray

from smn_cli.adapters.context import decode_context, decode_context2, encode_context, encode_context2
from smn_cli.errors import AdapterFileError, UsageError

Arrays = Sequence[np.ndarray]
"""The base's masked tensors, float32, in the order of the bits."""


@dataclass(frozen=True)
class Codec:
    """How a bit stream is stored.

    Attributes:
        name: as it stands in the file.
        encode: bool array (num_bits,) and the base to bytes, the same on every run.
        decode: bytes, num_bits and the base to a bool array (num_bits,); raises AdapterFileError if the bytes do not
            decode to exactly that many bits.
        needs_base: whether the base is looked at; otherwise any sequence will do, an empty one too.
    """

    name: str
    encode: Callable[[np.ndarray, Arrays], bytes]
    decode: Callable[[bytes, int, Arrays], np.ndarray]
    needs_base: bool = False


def pack_bits(bits: np.ndarray) -> bytes:
    """Bool array to bytes: the first bit is the lowest of the first byte, zeros fill the last byte."""
    packed = bitarray(endian="little")
    packed.pack(np.ascontiguousarray(bits, dtype=np.bool_).tobytes())
    return packed.tobytes()


def unpack_bits(payload: bytes, num_bits: int) -> np.ndarray:
    """Inverse of `pack_bits`.

    Raises:
        AdapterFileError: wrong length, or bits set beyond the end.
    """
    if len(payload) != (num_bits + 7) // 8:
        raise AdapterFileError(f"the mask has {len(payload)} bytes where {num_bits} bits need {(num_bits + 7) // 8}")
    packed = bitarray(endian="little")
    packed.frombytes(payload)
    if packed[num_bits:].any():
        raise AdapterFileError("the mask has bits set beyond its end")
    return np.frombuffer(packed[:num_bits].unpack(), dtype=np.bool_)


def _lzma_filters(num_bytes: int) -> list[dict[str, int]]:
    # a dictionary no larger than the data bounds the reader's memory
    size = min(max(4096, 1 << max(num_bytes - 1, 1).bit_length()), 1 << 26)
    return [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": size, "lc": 0, "pb": 0}]


def pack_xz(data: bytes) -> bytes:
    """One xz stream without a check of its own."""
    return lzma.compress(data, format=lzma.FORMAT_XZ, check=lzma.CHECK_NONE, filters=_lzma_filters(len(data)))


def unpack_xz(payload: bytes, num_bytes: int, *, what: str = "the mask") -> bytes:
    """Inverse of `pack_xz`, of data of a known length.

    Raises:
        AdapterFileError: no xz stream, or one of another length; the message says of what.
    """
    decoder = lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=num_bytes * 2 + (1 << 27))
    try:
        data = decoder.decompress(payload, max_length=num_bytes + 1)
    except (lzma.LZMAError, MemoryError) as error:
        raise AdapterFileError(f"{what} is not valid xz data: {error}") from None
    if not decoder.eof or decoder.unused_data:
        raise AdapterFileError(f"{what} does not end after the {num_bytes} bytes it should have")
    return data


def _lzma_encode(bits: np.ndarray, _: Arrays) -> bytes:
    return pack_xz(pack_bits(bits))


def _lzma_decode(payload: bytes, num_bits: int, _: Arrays) -> np.ndarray:
    return unpack_bits(unpack_xz(payload, (num_bits + 7) // 8), num_bits)


TRY_ALL = 1 << 18
"""Bits up to which `auto` tries every codec."""

CODECS = {
    "bits": Codec("bits", lambda bits, _: pack_bits(bits), lambda payload, num_bits, _: unpack_bits(payload, num_bits)),
    "lzma": Codec("lzma", _lzma_encode, _lzma_decode),
    "context": Codec("context", encode_context, decode_context, needs_base=True),
    "context2": Codec("context2", encode_context2, decode_context2, needs_base=True),
}


def get_codec(name: str) -> Codec:
    """Codec by name.

    Raises:
        UsageError: there is none of that name.
    """
    if name not in CODECS:
        raise UsageError(f"`codec` {name} is unknown: expected auto or one of {', '.join(CODECS)}")
    return CODECS[name]


def encode_smallest(bits: np.ndarray, base: Arrays, name: str = "auto") -> tuple[Codec, bytes]:
    """Encode with the named codec, or with whichever gives the fewest bytes (ties: the plainer one).

    Of more than 2^18 bits the others take seconds, and are only tried where they could win: `context2` where `context`
    needs more than 2/3 of the entropy of independent bits of each tensor's density (it then knows little of these
    masks), lzma where the best so far needs more than 3/4 of that of all bits together, which lzma does not come near.
    """
    if name != "auto":
        codec = get_codec(name)
        return codec, codec.encode(bits, base)
    is_small = len(bits) <= TRY_ALL
    encoded, plain_bytes = {"context": CODECS["context"].encode(bits, base)}, (len(bits) + 7) // 8
    of_tensors = np.split(bits, np.cumsum([tensor.size for tensor in base])[:-1])
    if is_small or len(encoded["context"]) > sum(map(_entropy_bytes, of_tensors)) * 2 / 3:
        encoded["context2"] = CODECS["context2"].encode(bits, base)
    if is_small or min(plain_bytes, *map(len, encoded.values())) > 0.75 * _entropy_bytes(bits):
        encoded["lzma"] = CODECS["lzma"].encode(bits, base)
    best = min((name for name in CODECS if name in encoded), key=lambda name: len(encoded[name]))
    if plain_bytes <= len(encoded[best]):
        return CODECS["bits"], CODECS["bits"].encode(bits, base)
    return CODECS[best], encoded[best]


def _entropy_bytes(bits: np.ndarray) -> float:
    kept = np.array([np.count_nonzero(bits), len(bits) - np.count_nonzero(bits)]) / len(bits)
    return float(-(kept * np.log2(np.maximum(kept, 1e-12))).sum() * len(bits) / 8)
