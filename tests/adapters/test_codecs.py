"""Masks to bytes and back: every length, hand-written bytes, exact refusal of anything else."""

import hashlib
import lzma
import math
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smn_cli.adapters import codecs
from smn_cli.adapters.codecs import CODECS, encode_smallest, get_codec, pack_bits, unpack_bits
from smn_cli.errors import AdapterFileError, UsageError

HAND_WRITTEN = [
    ("1", "01"),
    ("01101", "16"),
    ("11111111", "ff"),
    ("100000001", "0101"),
    ("0011010111000010", "ac43"),
]


def some_base(num_weights: int, seed: int = 0) -> list[np.ndarray]:
    """Two tensors, or one of a single weight, with values all over float32."""
    generator = np.random.default_rng(seed)
    values = (generator.normal(size=num_weights) * 2.0 ** generator.integers(-40, 9, num_weights)).astype(np.float32)
    first = num_weights // 3
    return [part for part in (values[:first].reshape(-1, 1), values[first:].reshape(1, -1)) if part.size]


def bits_of(text: str) -> np.ndarray:
    return np.array([char == "1" for char in text])


@pytest.mark.parametrize(("text", "expected"), HAND_WRITTEN)
def test_the_first_bit_is_the_lowest_of_the_first_byte(text: str, expected: str) -> None:
    assert pack_bits(bits_of(text)).hex() == expected
    assert unpack_bits(bytes.fromhex(expected), len(text)).tolist() == bits_of(text).tolist()


@pytest.mark.parametrize("name", CODECS)
def test_every_length_up_to_65_round_trips(name: str) -> None:
    codec = get_codec(name)
    generator = np.random.default_rng(1)
    for num_bits in range(1, 66):
        for bits in (generator.random(num_bits) < 0.7, np.ones(num_bits, bool), np.zeros(num_bits, bool)):
            base = some_base(num_bits)
            decoded = codec.decode(codec.encode(bits, base), num_bits, base)
            assert decoded.dtype == np.bool_
            assert decoded.tolist() == bits.tolist()


def test_no_bits_are_no_bytes() -> None:
    assert pack_bits(np.zeros(0, bool)) == b""
    assert unpack_bits(b"", 0).size == 0


@settings(max_examples=150, deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=3000), st.sampled_from(sorted(CODECS)))
def test_any_bits_round_trip(values: list[bool], name: str) -> None:
    codec = get_codec(name)
    base = some_base(len(values))
    assert codec.decode(codec.encode(np.array(values), base), len(values), base).tolist() == values


@settings(max_examples=150, deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=300))
def test_packed_bits_are_the_binary_number_they_spell(values: list[bool]) -> None:
    packed = pack_bits(np.array(values))
    assert len(packed) == math.ceil(len(values) / 8)
    # as one little-endian integer: bit i has weight 2^i, and the pad bits add nothing
    assert int.from_bytes(packed, "little") == sum(1 << position for position, value in enumerate(values) if value)


def test_non_contiguous_bits_pack_like_their_copy() -> None:
    bits = np.random.default_rng(2).random((9, 7)) < 0.5
    assert pack_bits(bits.T.reshape(-1)[::2]) == pack_bits(bits.T.reshape(-1)[::2].copy())


@pytest.mark.parametrize("num_bits", range(1, 18))
def test_bits_beyond_the_end_are_refused(num_bits: int) -> None:
    payload = bytearray(pack_bits(np.ones(num_bits, bool)))
    for position in range(num_bits, 8 * len(payload)):
        wrong = bytearray(payload)
        wrong[position // 8] |= 1 << position % 8
        with pytest.raises(AdapterFileError, match="beyond its end"):
            unpack_bits(bytes(wrong), num_bits)


@pytest.mark.parametrize("name", CODECS)
def test_a_payload_for_another_length_is_refused(name: str) -> None:
    codec, base = get_codec(name), some_base(64)
    payload = codec.encode(np.ones(64, bool), base)
    if not codec.needs_base:  # the base tells the other how many there are
        for num_bits in (1, 56, 63, 65, 72, 1 << 20):
            with pytest.raises(AdapterFileError, match="mask"):
                codec.decode(payload, num_bits, base)
    for wrong in (payload + b"\0", payload[:-1], b""):
        with pytest.raises(AdapterFileError, match="mask"):
            codec.decode(wrong, 64, base)


def test_a_mask_of_mostly_ones_takes_less_than_a_bit_a_weight_with_lzma() -> None:
    bits = np.random.default_rng(3).random(200_000) < 0.96
    entropy = -0.96 * math.log2(0.96) - 0.04 * math.log2(0.04)
    size = len(get_codec("lzma").encode(bits, [])) * 8 / bits.size
    assert entropy < size < 0.35


@pytest.mark.slow
def test_auto_takes_the_smallest_and_on_a_tie_the_plainer() -> None:
    few, generator = np.ones(8, bool), np.random.default_rng(5)
    assert encode_smallest(few, some_base(8))[0].name == "bits"
    periodic, other = np.tile([True, False, False], 40_000), some_base(120_000)
    noise = generator.random(120_000) < 0.5
    normal = [generator.normal(size=(300, 100)).astype(np.float32) for _ in range(4)]
    some_small = (np.abs(np.concatenate(normal)).reshape(-1) > 0.3) | (generator.random(120_000) < 0.7)
    for bits, base, best in ((periodic, other, "lzma"), (some_small, normal, "context"), (noise, other, "bits")):
        codec, payload = encode_smallest(bits, base)
        assert codec.name == best
        assert len(payload) == min(len(each.encode(bits, base)) for each in CODECS.values())
        assert encode_smallest(bits, base, "bits")[0].name == "bits"


def a_trained_looking_mask(density: float) -> tuple[np.ndarray, list[np.ndarray]]:
    """Bits over three tensors of integer-made values: cut by rank-one pushes of their magnitudes, in integers alone."""
    base, bits = [], []
    for sides in ((200, 160), (64, 96), (40, 24), (300, 1)):
        numbers = (np.arange(math.prod(sides), dtype=np.uint64) * np.uint64(2654435761) % np.uint64(1 << 32)).astype(
            int
        )
        values = (numbers.reshape(sides) >> 15) - (1 << 16)
        rows, columns = (np.arange(sides[0]) * 37 % 29)[:, None] - 14, (np.arange(sides[1]) * 53 % 31)[None] - 15
        pushed = rows * columns * np.sign(values) * 512 - np.abs(values)
        base.append((values / 65536).astype(np.float32))
        bits.append((pushed < np.sort(pushed, axis=None)[int(density * values.size) - 1]).reshape(-1))
    return np.concatenate(bits), base


@pytest.mark.parametrize(
    ("name", "size", "digest"),
    [
        ("context", 1236, "0251959578831208a30bdb5e2d3e441041ac60cb7c634b2562f673fd58d3ce91"),
        ("context2", 952, "67db72ba1c00f9e0f568fafb370ac7dc83ee01bb3a2c00a10ae5b309b92a6809"),
    ],
)
def test_payloads_of_the_models_never_change(name: str, size: int, digest: str) -> None:
    bits, base = a_trained_looking_mask(0.9)
    payload = get_codec(name).encode(bits, base)
    assert (len(payload), hashlib.sha256(payload).hexdigest()) == (size, digest)
    assert get_codec(name).decode(payload, len(bits), base).tolist() == bits.tolist()


@pytest.mark.parametrize("name", ["context", "context2"])
def test_more_words_than_weights_and_two_are_refused_before_they_are_read(name: str) -> None:
    base = some_base(64)
    with pytest.raises(AdapterFileError, match="more than 64 weights can need"):
        get_codec(name).decode(bytes((1 + (name == "context2")) * len(base) + 4 * 67), 64, base)


@pytest.mark.parametrize("name", ["context", "context2"])
def test_a_tensor_too_large_for_exact_sums_is_refused(name: str) -> None:
    huge = [np.broadcast_to(np.float32(1), (1 << 20, (1 << 14) + 1))]
    with pytest.raises(AdapterFileError, match=r"more than 2\^34 weights"):
        get_codec(name).decode(bytes(5 + (name == "context2")), huge[0].size, huge)


def test_few_cuts_are_for_context2() -> None:
    bits, base = a_trained_looking_mask(0.998)
    encoded = {name: len(codec.encode(bits, base)) for name, codec in CODECS.items()}
    assert encode_smallest(bits, base)[0].name == min(encoded, key=lambda name: encoded[name]) == "context2"


def test_auto_tries_context2_on_large_masks_that_context_knows_little_of(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(6)
    base = [generator.normal(size=(600, 500)).astype(np.float32)]
    assert base[0].size > codecs.TRY_ALL
    few = np.ones(base[0].size, dtype=bool)
    few[generator.choice(few.size, 300, replace=False)] = False
    assert encode_smallest(few, base)[0].name == "context2"
    by_magnitude = np.abs(base[0]).reshape(-1) > 0.3
    monkeypatch.delitem(CODECS, "context2")  # it would be missed if it were tried
    assert encode_smallest(by_magnitude, base)[0].name == "context"


def test_an_unknown_codec_is_a_usage_error_that_lists_the_known() -> None:
    with pytest.raises(UsageError, match=r"brotli is unknown: expected auto or one of bits, lzma, context"):
        encode_smallest(np.ones(8, bool), [], "brotli")


def test_xz_data_of_other_kinds_is_refused() -> None:
    packed = pack_bits(np.ones(800, bool))
    decode = get_codec("lzma").decode
    for wrong in (packed, lzma.compress(packed, format=lzma.FORMAT_ALONE), lzma.compress(packed) * 2, b"\xfd7zXZ\0"):
        with pytest.raises(AdapterFileError, match="mask"):
            decode(wrong, 800, [])


@pytest.mark.slow
def test_an_xz_bomb_is_refused_without_being_inflated() -> None:
    bomb = lzma.compress(bytes(300_000_000), preset=0)
    tracemalloc.start()
    try:
        with pytest.raises(AdapterFileError, match="does not end after the 100 bytes"):
            get_codec("lzma").decode(bomb, 800, [])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 20_000_000


def test_an_xz_stream_that_wants_a_huge_dictionary_is_refused() -> None:
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 24}]
    stream = bytearray(lzma.compress(pack_bits(np.ones(800, bool)), check=lzma.CHECK_NONE, filters=filters))
    place = stream.index(bytes.fromhex("210118"))  # LZMA2, one property byte: 2^24 bytes
    stream[place + 2] = 40  # 4 GiB
    header_end = 12 + (stream[12] + 1) * 4 - 4
    stream[header_end : header_end + 4] = zlib.crc32(bytes(stream[12:header_end])).to_bytes(4, "little")
    with pytest.raises(AdapterFileError, match=r"not valid xz data.*[Mm]emory"):
        get_codec("lzma").decode(bytes(stream), 800, [])


@pytest.mark.parametrize("extra", [bytes(8), b"\1\2\3\4" * 2, b"\xff" * 8])
@pytest.mark.parametrize("name", ["context", "context2"])
def test_words_that_context_does_not_read_are_refused(name: str, extra: bytes) -> None:
    codec, base = get_codec(name), some_base(5000)
    bits = np.random.default_rng(4).random(5000) < 0.8
    payload = codec.encode(bits, base)
    assert codec.decode(payload, 5000, base).tolist() == bits.tolist()
    with pytest.raises(AdapterFileError, match="does not end where it should"):
        codec.decode(payload + extra, 5000, base)
