"""The codecs `context` and `context2`: a model of the bits and a range coder (docs/format.md, "Codec context").

`context` suits masks of scores that start at the weights' magnitude. `context2` starts each tensor at the share of its
cuts and has more products of rows and columns: for masks of few cuts, and for large tensors.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from smn_cli.adapters.context_model import (
    CONTEXT,
    CONTEXT2,
    LIMIT,
    ONE,
    SQUASH,
    Floats,
    Integers,
    Parameters,
    TensorModel,
    Variant,
    new_curve,
)
from smn_cli.adapters.range_coder import new_decoder, new_encoder
from smn_cli.errors import AdapterFileError

MAX_TENSOR = 1 << 34
"""Weights of a tensor; with more, sums of integers in float64 would not be exact."""
COVERED = 255
"""Steps of the share of a tensor that is coded; everything above it is kept."""
EVEN, PER_RATE = 64, 16
"""A rate of 64 is a logit of 0; each step above takes 16/256 nat away, each below adds as much."""
_LOGITS = (EVEN - np.arange(256)) * PER_RATE


def encode_context(bits: np.ndarray, base: Sequence[np.ndarray], variant: Variant = CONTEXT) -> bytes:
    """Payload of a stream of bits over the weights it belongs to, in the same order."""
    return encode_cuts(~bits, base, variant=variant)


def decode_context(payload: bytes, num_bits: int, base: Sequence[np.ndarray], variant: Variant = CONTEXT) -> np.ndarray:
    """Inverse of `encode_context`.

    Raises:
        AdapterFileError: this payload was not made over this base.
    """
    return ~decode_cuts(payload, num_bits, base, variant=variant)


def encode_context2(bits: np.ndarray, base: Sequence[np.ndarray]) -> bytes:
    """As `encode_context`, with rates and more products."""
    return encode_context(bits, base, CONTEXT2)


def decode_context2(payload: bytes, num_bits: int, base: Sequence[np.ndarray]) -> np.ndarray:
    """Inverse of `encode_context2`.

    Raises:
        AdapterFileError: this payload was not made over this base.
    """
    return decode_context(payload, num_bits, base, CONTEXT2)


def encode_cuts(
    cuts: np.ndarray, base: Sequence[np.ndarray], among: np.ndarray | None = None, variant: Variant = CONTEXT
) -> bytes:
    """Payload of the places that are set in a stream.

    Args:
        cuts: (num_bits,) bool.
        base: the weights, float32, in the same order.
        among: (num_bits,) bool that the reader knows too: outside it nothing is set. None for everywhere.
        variant: which codec's model.
    """
    encoder, curve = new_encoder(), new_curve(variant)
    shares, rates = bytearray(len(base)), bytearray(len(base) if variant.tells_rates else 0)
    parts = [(position, part) for position, part in _by_size(base) if cuts[part].any()]

    def num_coded(position: int, part: slice, tensor: TensorModel) -> int:
        shares[position] = -(-tensor.rank_after(cuts[part]) * COVERED // max(tensor.num_places, 1))
        return _num_coded(shares[position], tensor.num_places)

    for position, part, tensor in _models(base, parts, curve, variant, among, num_coded):
        if rates and len(tensor.order):
            rates[position] = _nearest_rate(int(np.count_nonzero(cuts[part][tensor.order])), len(tensor.order))

        def write(places: Integers, chances: Floats, cuts: np.ndarray = cuts[part]) -> np.ndarray:
            chosen = cuts[places]
            encoder.encode(chosen, chances)
            return chosen

        tensor.code(write, _logit(rates, position))
    return bytes(shares + rates) + encoder.words().astype("<u4").tobytes()


def decode_cuts(
    payload: bytes,
    num_bits: int,
    base: Sequence[np.ndarray],
    among: np.ndarray | None = None,
    variant: Variant = CONTEXT,
) -> np.ndarray:
    """Inverse of `encode_cuts`.

    Raises:
        AdapterFileError: this payload was not made over this base.
    """
    num_told = len(base) * (2 if variant.tells_rates else 1)
    if len(payload) < num_told or (len(payload) - num_told) % 4:
        raise AdapterFileError(f"the mask has {len(payload)} bytes: expected {num_told} and a multiple of four")
    if len(payload) > num_told + 4 * (num_bits + 2):
        raise AdapterFileError(f"the mask has {len(payload)} bytes, more than {num_bits} weights can need")
    parts = [(position, part) for position, part in _by_size(base) if payload[position]]
    words = np.frombuffer(payload[num_told:], dtype="<u4").astype(np.uint32)
    rates = payload[len(base) : num_told]
    decoder, curve = new_decoder(words), new_curve(variant)
    cuts = np.zeros(num_bits, dtype=np.bool_)

    def num_coded(position: int, _: slice, tensor: TensorModel) -> int:
        return _num_coded(payload[position], tensor.num_places)

    for position, part, tensor in _models(base, parts, curve, variant, among, num_coded):

        def read(places: Integers, chances: Floats, cuts: np.ndarray = cuts[part]) -> np.ndarray:
            cut = decoder.decode(chances)
            cuts[places] = cut
            return cut

        tensor.code(read, _logit(rates, position))
    if not decoder.is_used_up():
        raise AdapterFileError("the mask does not end where it should")
    return cuts


def _num_coded(share: int, num_weights: int) -> int:
    return num_weights * share // COVERED


def _nearest_rate(num_cuts: int, num_coded: int) -> int:
    """The byte whose probability of a cut is nearest to the share of cuts, in integers; of equal ones the first."""
    chances = SQUASH[np.maximum(_LOGITS, -LIMIT) + LIMIT].astype(np.int64)
    return int(np.abs(chances * num_coded - num_cuts * ONE).argmin())


def _logit(rates: bytes | bytearray, position: int) -> int:
    return int(_LOGITS[rates[position]]) if rates else 0


def _models(
    base: Sequence[np.ndarray],
    parts: list[tuple[int, slice]],
    curve: Parameters,
    variant: Variant,
    among: np.ndarray | None,
    num_coded: Callable[[int, slice, TensorModel], int],
) -> Iterator[tuple[int, slice, TensorModel]]:
    """Position, bits and model of each tensor in the order of `parts`; the next is sorted while one is coded."""

    def model(position: int, part: slice) -> TensorModel:
        tensor = TensorModel(base[position], curve, variant, None if among is None else among[part])
        tensor.sort(num_coded(position, part, tensor))
        return tensor

    with ThreadPoolExecutor(1) as beside:  # NumPy lets go of the interpreter while it sorts
        coming = beside.submit(model, *parts[0]) if parts else None
        for place, (position, part) in enumerate(parts, start=1):
            ready, coming = coming, beside.submit(model, *parts[place]) if place < len(parts) else None
            if ready is not None:
                yield position, part, ready.result()


def _by_size(base: Sequence[np.ndarray]) -> list[tuple[int, slice]]:
    """Position and bits of each tensor, the largest tensor first: what it teaches serves the small."""
    if any(tensor.size > MAX_TENSOR for tensor in base):
        raise AdapterFileError(f"a tensor of more than 2^34 weights: use the codec bits or lzma ({MAX_TENSOR} at most)")
    starts = np.cumsum([0, *(tensor.size for tensor in base)]).tolist()
    parts = [(position, slice(starts[position], starts[position + 1])) for position in range(len(base))]
    return sorted(parts, key=lambda found: -base[found[0]].size)
