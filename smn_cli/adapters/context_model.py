"""The model of the codecs `context` and `context2`: how surprising a bit is, given the base (docs/format.md).

A tensor's weights are taken from the smallest magnitude to the largest, in blocks. Before a block the probability
that a weight is cut is told by an additive logistic model, in integers alone: its magnitude against the tensor's
median, its row, its column, and products of a row's and a column's factor that act with the sign of the weight,
because a gradient of low rank pushes weights of opposite sign in opposite directions. After a block every parameter
takes a Newton step. Writer and reader do the same sums, so that no table is stored.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

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
FACTOR = 1 << 14
"""Where factors start: 1/4."""
QUIET = 512
"""A block after one with fewer cuts than one in so many is coded by magnitude alone."""
_DECAY = 4278222805  # floor(2^32 exp(-1/256))


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


@dataclass(frozen=True)
class Variant:
    """What the codecs of this family differ in.

    Attributes:
        start: of the curve, in 1/2^16 nat.
        num_products: of a row's and a column's factor.
        magnitude_step: how far the parameters of the magnitude go, in 1/2^16 of Newton's step.
        tells_rates: each tensor starts at the share of its cuts, which stands in the file.
        flat_is_quiet: tensors of one row or one column are told by magnitude alone: a parameter for each weight learns
            nothing and takes long.
    """

    start: int
    num_products: int
    magnitude_step: int = ONE
    tells_rates: bool = False
    flat_is_quiet: bool = False


CONTEXT = Variant(start=-3 << 15, num_products=2)
CONTEXT2 = Variant(start=0, num_products=8, magnitude_step=ONE >> 1, tells_rates=True, flat_is_quiet=True)


class Parameters:
    """Parameters of one kind of context, with the curvature that each has seen.

    Args:
        start: values in 1/2^16 nat, one for each context.
        prior: curvature in advance: the larger, the slower they move.
        rate: in 1/2^16 of Newton's step.
    """

    def __init__(self, start: Integers, prior: int, rate: int = ONE) -> None:
        self.values = start
        self._rate = rate
        self._curvature = np.full(len(start), prior * ONE, dtype=np.int64)
        self.shown = (start >> SHOWN).astype(np.int32)

    def sum(self, places: Integers, amounts: Floats) -> Integers:
        """Sum of integers below 2^53 by context."""
        return np.bincount(places, amounts, len(self.values)).astype(np.int64)

    def step(self, gradient: Integers, curvature: Integers) -> None:
        """Newton's step: gradient over all the curvature so far."""
        self._curvature += curvature
        self.values += gradient * self._rate // self._curvature
        np.minimum(np.maximum(self.values, -8 * ONE, out=self.values), 8 * ONE, out=self.values)
        self.shown = (self.values >> SHOWN).astype(np.int32)

    def mean_square(self) -> int:
        """Of what is shown."""
        wide = self.shown.astype(np.int64)
        return int((wide * wide).sum()) // len(wide)


def new_curve(variant: Variant) -> Parameters:
    """What all tensors of a file share: a parameter for each of 8 steps of magnitude an octave."""
    return Parameters(_flat(OCTAVES * 8, variant.start), 2, variant.magnitude_step)


def _flat(length: int, value: int = 0) -> Integers:
    return np.full(length, value, dtype=np.int64)


def _product(number: int, num_rows: int, num_columns: int) -> tuple[Parameters, Parameters]:
    """Factors of rows and of columns: one side starts at 0, the other off it, each product in a way of its own."""
    still, moved = (num_rows, num_columns) if number % 2 == 0 else (num_columns, num_rows)
    start = _flat(moved, FACTOR)
    if number > 1:
        start[(np.arange(moved) >> (number - 2)) & 1 == 0] = -FACTOR
    first, second = Parameters(_flat(still), 1), Parameters(start, 1)
    return (first, second) if number % 2 == 0 else (second, first)


@dataclass
class _Block:
    """Where the weights of a block stand; rows, columns and signs are none if it is told by magnitude alone."""

    bins: Integers
    coarse: Integers
    logits: npt.NDArray[np.int32]
    spots: tuple[Integers, Integers, npt.NDArray[np.int32]] | None = None


class TensorModel:
    """Model of one tensor: the order of its weights, its blocks, its parameters.

    Args:
        weights: of the base, float32.
        curve: shared by all tensors.
        variant: which codec's.
        among: (num_weights,) bool, the weights that are coded; None for all.
    """

    def __init__(
        self, weights: np.ndarray, curve: Parameters, variant: Variant, among: np.ndarray | None = None
    ) -> None:
        bits = np.ascontiguousarray(weights, dtype=np.float32).reshape(-1).view(np.uint32)
        magnitudes = ((bits >> 16) & 0x7FFF).astype(np.uint16)
        self.num_weights = len(bits)
        self.order = np.argsort(magnitudes, kind="stable")
        median = int(magnitudes[self.order[self.num_weights // 2]])
        if among is not None:
            self.order = self.order[among[self.order]]
        # looked up block by block: of most masks only a part of the weights is ever looked at
        self._bits, self._lowest = bits, median - (BELOW << 7)
        num_rows = weights.shape[0] if weights.ndim else 1
        self._num_columns = num_columns = self.num_weights // num_rows
        self._curve, self._own = curve, Parameters(_flat(OCTAVES * 2), 4, variant.magnitude_step)
        self._rows, self._columns = Parameters(_flat(num_rows), 3), Parameters(_flat(num_columns), 3)
        self._is_always_quiet = variant.flat_is_quiet and 1 in (num_rows, num_columns)
        self._products = [_product(number, num_rows, num_columns) for number in range(variant.num_products)]

    def code(self, num_coded: int, coder: Coder, logit: int = 0) -> None:
        """Walk through the blocks; the coder turns places and probabilities into bits, which are then learned.

        The logit, in 1/256 nat, is added everywhere.
        """
        start, is_quiet = 0, False
        while start < num_coded:
            size = max(64, min(start >> 3, self.num_weights >> 8))
            places = self.order[start : min(start + size, num_coded)]
            block = self._look(places, is_quiet or self._is_always_quiet)
            at = np.minimum(np.maximum(block.logits + logit, -LIMIT), LIMIT) + LIMIT
            chances = SQUASH[at]
            cut = coder(places, chances)
            self._learn(block, cut * float(ONE) - chances, SPREAD[at])
            is_quiet = int(cut.sum()) * QUIET < len(places)
            start += len(places)

    def _look(self, places: Integers, is_quiet: bool) -> _Block:
        bits = self._bits[places]
        levels = np.clip(((bits >> 16) & 0x7FFF).astype(np.int64) - self._lowest, 0, (OCTAVES << 7) - 1)
        bins, coarse = levels >> 4, levels >> 6
        logits = self._curve.shown[bins] + self._own.shown[coarse]
        if is_quiet:
            return _Block(bins, coarse, logits)
        rows = places // self._num_columns
        columns = places - rows * self._num_columns
        signs = np.where(bits >> 31, np.int32(-1), np.int32(1))
        logits += self._rows.shown[rows] + self._columns.shown[columns]
        for left, right in self._products:
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
        for left, right in self._products:
            up = left.sum(rows, signed * right.shown[columns]) >> SHOWN
            across = right.sum(columns, signed * left.shown[rows]) >> SHOWN
            sizes = left.mean_square(), right.mean_square()
            left.step(up, by_row * sizes[1] >> 16)
            right.step(across, by_column * sizes[0] >> 16)
