"""The codec `context`: bits coded by how surprising they are, given the base (docs/format.md, "Codec context").

A tensor's weights are taken from the smallest magnitude to the largest, in blocks. Before a block the probability
that a weight is cut is told by an additive logistic model, in integers alone: its magnitude against the tensor's
median, its row, its column, and two products of a row's and a column's factor that act with the sign of the weight,
because a gradient of low rank pushes weights of opposite sign in opposite directions. After a block every parameter
takes a Newton step. Writer and reader do the same sums, so that no table is stored.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import constriction
import numpy as np
import numpy.typing as npt

from smn_cli.errors import AdapterFileError

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Coder = Callable[[Integers, Floats], np.ndarray]
"""Places in a tensor and probabilities of a cut, times 2^16, to whether each is cut."""

ONE = 1 << 16
"""1.0 of a parameter in nats, and of a probability."""
SHOWN = 8
"""Bits dropped from a parameter before it is used: logits are in 1/256 nat."""
LIMIT = 11 << SHOWN
"""Logits are clipped to 11 nats."""
OCTAVES = 40
BELOW = 30
"""Magnitudes are told from 2^-30 to 2^10 of the tensor's median."""
START = -3 << 15
"""Logit of the curve before the first weight: -1.5 nats."""
FACTOR = 1 << 14
"""Where factors start: 1/4."""
QUIET = 512
"""A block after one with fewer cuts than one in so many is coded by magnitude alone."""
COVERED = 255
"""Steps of the share of a tensor that is coded; everything above it is kept."""
_DECAY = 4278222805  # floor(2^32 exp(-1/256))
_BERNOULLI = constriction.stream.model.Bernoulli(perfect=False)


def _squash() -> Floats:
    power, falling = 1 << 32, []
    for _ in range(LIMIT + 1):
        total = (1 << 32) + power
        falling.append(max(1, (ONE * power + total // 2) // total))
        power = power * _DECAY >> 32
    return np.array([*falling[:0:-1], *(ONE - value for value in falling)], dtype=np.float64)


SQUASH = _squash()
"""Probability of a cut, times 2^16, by logit + LIMIT; integers, as float64 for sums, all of which are exact."""
SPREAD = np.floor(SQUASH * (ONE - SQUASH) / ONE)


class Parameters:
    """Parameters of one kind of context, with the curvature that each has seen.

    Args:
        start: values in 1/2^16 nat, one for each context.
        prior: curvature in advance: the larger, the slower they move.
    """

    def __init__(self, start: Integers, prior: int) -> None:
        self.values = start
        self._curvature = np.full(len(start), prior * ONE, dtype=np.int64)
        self.shown = (start >> SHOWN).astype(np.int32)

    def sum(self, places: Integers, amounts: Floats) -> Integers:
        """Sum of integers below 2^53 by context."""
        return np.bincount(places, amounts, len(self.values)).astype(np.int64)

    def step(self, gradient: Integers, curvature: Integers) -> None:
        """Newton's step: gradient over all the curvature so far."""
        self._curvature += curvature
        self.values += (gradient << 16) // self._curvature
        np.minimum(np.maximum(self.values, -8 * ONE, out=self.values), 8 * ONE, out=self.values)
        self.shown = (self.values >> SHOWN).astype(np.int32)

    def mean_square(self) -> int:
        """Of what is shown."""
        wide = self.shown.astype(np.int64)
        return int((wide * wide).sum()) // len(wide)


def _flat(length: int, value: int = 0) -> Integers:
    return np.full(length, value, dtype=np.int64)


@dataclass
class _Block:
    """Where the weights of a block stand; rows, columns and signs are none if it is told by magnitude alone."""

    bins: Integers
    coarse: Integers
    logits: npt.NDArray[np.int32]
    spots: tuple[Integers, Integers, npt.NDArray[np.int32]] | None = None


class _Tensor:
    """Model of one tensor: the order of its weights, its blocks, its parameters."""

    def __init__(self, weights: np.ndarray, curve: Parameters, among: np.ndarray | None = None) -> None:
        bits = np.ascontiguousarray(weights, dtype=np.float32).reshape(-1).view(np.uint32)
        magnitudes = ((bits >> 16) & 0x7FFF).astype(np.uint16)
        self.num_weights = len(bits)
        self.order = np.argsort(magnitudes, kind="stable")
        median = int(magnitudes[self.order[self.num_weights // 2]])
        if among is not None:
            self.order = self.order[among[self.order]]
        self._signs = np.where(bits >> 31, np.int32(-1), np.int32(1))
        self._levels = np.clip(magnitudes.astype(np.int64) - median + (BELOW << 7), 0, (OCTAVES << 7) - 1)
        num_rows = weights.shape[0] if weights.ndim else 1
        self._num_columns = num_columns = self.num_weights // num_rows
        self._curve, self._own = curve, Parameters(_flat(OCTAVES * 2), 4)
        self._rows, self._columns = Parameters(_flat(num_rows), 3), Parameters(_flat(num_columns), 3)
        self._pairs = (
            (Parameters(_flat(num_rows), 1), Parameters(_flat(num_columns, FACTOR), 1)),
            (Parameters(_flat(num_rows, FACTOR), 1), Parameters(_flat(num_columns), 1)),
        )

    def code(self, num_coded: int, coder: Coder) -> None:
        """Walk through the blocks; the coder turns places and probabilities into bits, which are then learned."""
        start, is_quiet = 0, False
        while start < num_coded:
            size = max(64, min(start >> 3, self.num_weights >> 8))
            places = self.order[start : min(start + size, num_coded)]
            block = self._look(places, is_quiet)
            at = np.minimum(np.maximum(block.logits, -LIMIT), LIMIT) + LIMIT
            chances = SQUASH[at]
            cut = coder(places, chances)
            self._learn(block, cut * float(ONE) - chances, SPREAD[at])
            is_quiet = int(cut.sum()) * QUIET < len(places)
            start += len(places)

    def _look(self, places: Integers, is_quiet: bool) -> _Block:
        levels = self._levels[places]
        bins, coarse = levels >> 4, levels >> 6
        logits = self._curve.shown[bins] + self._own.shown[coarse]
        if is_quiet:
            return _Block(bins, coarse, logits)
        rows = places // self._num_columns
        columns = places - rows * self._num_columns
        signs = self._signs[places]
        logits += self._rows.shown[rows] + self._columns.shown[columns]
        for left, right in self._pairs:
            logits += ((left.shown[rows] * right.shown[columns]) >> SHOWN) * signs
        return _Block(bins, coarse, logits, (rows, columns, signs))

    def _learn(self, block: _Block, errors: Floats, spread: Floats) -> None:
        for parameters, places in ((self._curve, block.bins), (self._own, block.coarse)):
            parameters.step(parameters.sum(places, errors), parameters.sum(places, spread))
        if block.spots is None:
            return
        rows, columns, signs = block.spots
        by_row, by_column = self._rows.sum(rows, spread), self._columns.sum(columns, spread)
        self._rows.step(self._rows.sum(rows, errors), by_row)
        self._columns.step(self._columns.sum(columns, errors), by_column)
        signed = errors * signs
        for left, right in self._pairs:
            up = left.sum(rows, signed * right.shown[columns]) >> SHOWN
            across = right.sum(columns, signed * left.shown[rows]) >> SHOWN
            sizes = left.mean_square(), right.mean_square()
            left.step(up, by_row * sizes[1] >> 16)
            right.step(across, by_column * sizes[0] >> 16)


def encode_context(bits: np.ndarray, base: Sequence[np.ndarray]) -> bytes:
    """Payload of a stream of bits over the weights it belongs to, in the same order."""
    return encode_cuts(~bits, base)


def decode_context(payload: bytes, num_bits: int, base: Sequence[np.ndarray]) -> np.ndarray:
    """Inverse of `encode_context`.

    Raises:
        AdapterFileError: this payload was not made over this base.
    """
    return ~decode_cuts(payload, num_bits, base)


def encode_cuts(cuts: np.ndarray, base: Sequence[np.ndarray], among: np.ndarray | None = None) -> bytes:
    """Payload of the places that are set in a stream.

    Args:
        cuts: (num_bits,) bool.
        base: the weights, float32, in the same order.
        among: (num_bits,) bool that the reader knows too: outside it nothing is set. None for everywhere.
    """
    encoder, curve = constriction.stream.queue.RangeEncoder(), _new_curve()
    shares = bytearray(len(base))
    for position, part in _by_size(base):
        tensor = _Tensor(base[position], curve, None if among is None else among[part])
        found = np.flatnonzero(cuts[part][tensor.order])
        last = int(found[-1]) + 1 if len(found) else 0
        shares[position] = -(-last * COVERED // max(len(tensor.order), 1))

        def write(places: Integers, chances: Floats, cuts: np.ndarray = cuts[part]) -> np.ndarray:
            chosen = cuts[places]
            encoder.encode(chosen.astype(np.int32), _BERNOULLI, chances / ONE)
            return chosen

        tensor.code(_num_coded(shares[position], len(tensor.order)), write)
    words: np.ndarray = encoder.get_compressed()
    return bytes(shares) + words.astype("<u4").tobytes()


def decode_cuts(
    payload: bytes, num_bits: int, base: Sequence[np.ndarray], among: np.ndarray | None = None
) -> np.ndarray:
    """Inverse of `encode_cuts`.

    Raises:
        AdapterFileError: this payload was not made over this base.
    """
    if len(payload) < len(base) or (len(payload) - len(base)) % 4:
        raise AdapterFileError(f"the mask has {len(payload)} bytes: expected {len(base)} and a multiple of four")
    words = np.frombuffer(payload[len(base) :], dtype="<u4").astype(np.uint32)
    decoder, curve = constriction.stream.queue.RangeDecoder(words), _new_curve()
    cuts = np.zeros(num_bits, dtype=np.bool_)
    for position, part in _by_size(base):
        tensor = _Tensor(base[position], curve, None if among is None else among[part])

        def read(places: Integers, chances: Floats, cuts: np.ndarray = cuts[part]) -> np.ndarray:
            try:
                cut: np.ndarray = decoder.decode(_BERNOULLI, chances / ONE).astype(np.bool_)
            except (AssertionError, ValueError) as error:
                raise AdapterFileError(f"the mask does not decode over this base: {error}") from None
            cuts[places] = cut
            return cut

        tensor.code(_num_coded(payload[position], len(tensor.order)), read)
    if not decoder.maybe_exhausted():
        raise AdapterFileError("the mask does not end where it should")
    return cuts


def _new_curve() -> Parameters:
    return Parameters(_flat(OCTAVES * 8, START), 2)


def _num_coded(share: int, num_weights: int) -> int:
    return num_weights * share // COVERED


def _by_size(base: Sequence[np.ndarray]) -> list[tuple[int, slice]]:
    """Position and bits of each tensor, the largest tensor first: what it teaches serves the small."""
    starts = np.cumsum([0, *(tensor.size for tensor in base)]).tolist()
    parts = [(position, slice(starts[position], starts[position + 1])) for position in range(len(base))]
    return sorted(parts, key=lambda found: -base[found[0]].size)
