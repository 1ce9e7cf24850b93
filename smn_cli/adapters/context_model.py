"""The model of the codecs `context` and `context2`: how surprising a bit is, given the base (docs/format.md).

A tensor's weights are taken from the smallest magnitude to the largest, in blocks. Before a block the probability
that a weight is cut is told by an additive logistic model, in integers alone: its magnitude against the tensor's
median, its row, its column, and products of a row's and a column's factor that act with the sign of the weight,
because a gradient of low rank pushes weights of opposite sign in opposite directions. After a block every parameter
takes a Newton step. Writer and reader do the same sums, so that no table is stored.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Factors = npt.NDArray[np.int32]
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
LOOKED_UP = 1 << 15
"""Weights whose places are looked up together."""
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
    """Sets of parameters of one kind of context, with the curvature that each has seen.

    Args:
        start: values in 1/2^16 nat, (contexts,) of a single set or (sets, contexts).
        prior: curvature in advance, of all or of each set: the larger, the slower they move.
        rate: in 1/2^16 of Newton's step.
    """

    def __init__(self, start: Integers, prior: int | Integers, rate: int = ONE) -> None:
        self.values = start
        self._rate = rate
        self._curvature = np.empty_like(start)
        self._curvature.T[:] = np.multiply(prior, ONE)
        self.shown = (start >> SHOWN).astype(np.int32)

    def sum(self, places: Integers, amounts: Floats) -> Floats:
        """Sum of integers by context, below 2^53 and so exact."""
        sums: Floats = np.asarray(np.bincount(places, amounts, self.values.shape[-1]), dtype=np.float64)
        return sums

    def step(self, gradient: Integers, curvature: Integers) -> None:
        """Newton's step: gradient, which is written over, over all the curvature so far."""
        self._curvature += curvature
        gradient *= self._rate
        gradient //= self._curvature
        self.values += gradient
        np.minimum(np.maximum(self.values, -8 * ONE, out=self.values), 8 * ONE, out=self.values)
        self.shown = (self.values >> SHOWN).astype(np.int32)


def new_curve(variant: Variant) -> Parameters:
    """What all tensors of a file share: a parameter for each of 8 steps of magnitude an octave."""
    return Parameters(_flat(OCTAVES * 8, variant.start), 2, variant.magnitude_step)


def _flat(length: int, value: int = 0) -> Integers:
    return np.full(length, value, dtype=np.int64)


class _Side:
    """Parameters of a tensor's rows, or of its columns: the first set for itself, one more for each product.

    Of a product one side's factors start at 0, the other's off it, each product in a way of its own.
    """

    def __init__(self, length: int, num_products: int, is_columns: bool) -> None:
        start = np.zeros((1 + num_products, length), dtype=np.int64)
        for number in range(num_products):
            if (number % 2 == 0) == is_columns:
                start[1 + number] = FACTOR
                if number > 1:
                    start[1 + number, (np.arange(length) >> (number - 2)) & 1 == 0] = -FACTOR
        self.parameters = Parameters(start, np.array([3] + [1] * num_products))

    def mean_squares(self) -> Integers:
        """(products, 1) of the factors that are shown."""
        wide = self.parameters.shown[1:].astype(np.int64)
        wide *= wide
        means: Integers = wide.sum(axis=1, keepdims=True) // wide.shape[1]
        return means

    def step(self, places: Integers, amounts: Floats, spread: Floats, squares: Integers) -> None:
        """Learn (sets, weights) of what each set could have done better; squares are those of the other side."""
        sums = [self.parameters.sum(places, amount) for amount in amounts]
        gradient = np.array(sums).astype(np.int64)
        gradient[1:] >>= SHOWN
        curvature = np.empty_like(gradient)
        curvature[0] = self.parameters.sum(places, spread)
        np.multiply(curvature[0], squares, out=curvature[1:])
        curvature[1:] >>= 16
        self.parameters.step(gradient, curvature)


@dataclass
class _Spots:
    """Where weights stand: (weights,) each."""

    bins: Integers
    coarse: Integers
    rows: Integers
    columns: Integers
    signs: npt.NDArray[np.int32]

    def part(self, start: int, end: int) -> "_Spots":
        return _Spots(
            self.bins[start:end],
            self.coarse[start:end],
            self.rows[start:end],
            self.columns[start:end],
            self.signs[start:end],
        )


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
        self._bits = np.ascontiguousarray(weights, dtype=np.float32).reshape(-1).view(np.uint32)
        self._magnitudes, self._among = ((self._bits >> 16) & 0x7FFF).astype(np.uint16), among
        self.num_weights = len(self._bits)
        ranks = np.bincount(self._magnitudes).cumsum()
        # looked up block by block: of most masks only a part of the weights is ever looked at
        self._lowest = int(ranks.searchsorted(self.num_weights // 2, side="right")) - (BELOW << 7)
        self._ranks = ranks if among is None else np.bincount(self._magnitudes[among], minlength=1).cumsum()
        self.num_places, self.order = int(self._ranks[-1]), np.zeros(0, dtype=np.int64)
        num_rows = weights.shape[0] if weights.ndim else 1
        self._num_columns = num_columns = self.num_weights // num_rows
        self._curve, self._own = curve, Parameters(_flat(OCTAVES * 2), 4, variant.magnitude_step)
        self._rows = _Side(num_rows, variant.num_products, is_columns=False)
        self._columns = _Side(num_columns, variant.num_products, is_columns=True)
        self._is_always_quiet = variant.flat_is_quiet and 1 in (num_rows, num_columns)

    def rank_after(self, cuts: np.ndarray) -> int:
        """How many weights come up to the last one that is cut, in the order of magnitudes; 0 if none is."""
        found = np.flatnonzero(cuts if self._among is None else cuts & self._among)
        if not len(found):
            return 0
        magnitudes = self._magnitudes[found]
        highest = magnitudes.max()
        alike = self._magnitudes[: found[magnitudes == highest][-1] + 1] == highest  # of those, places count
        if self._among is not None:
            alike &= self._among[: len(alike)]
        return int(np.count_nonzero(alike)) + (int(self._ranks[int(highest) - 1]) if highest else 0)

    def sort(self, num_coded: int) -> None:
        """Order so many weights, from the smallest magnitude; of equal ones, the first place comes first."""
        if not num_coded:
            return
        highest = int(self._ranks.searchsorted(num_coded))
        is_low = self._magnitudes <= highest
        places = np.flatnonzero(is_low if self._among is None else is_low & self._among)
        self.order = places[np.argsort(self._magnitudes[places], kind="stable")[:num_coded]]

    def code(self, coder: Coder, logit: int = 0) -> None:
        """Walk through the blocks; the coder turns places and probabilities into bits, which are then learned.

        The logit, in 1/256 nat, is added everywhere.
        """
        is_quiet = False
        for blocks in _groups(self._ends()):
            first = blocks[0][0]
            group = self.order[first : blocks[-1][1]]
            looked = self._look(group)
            for start, end in blocks:
                spots = looked.part(start - first, end - first)
                logits, factors = self._predict(spots, is_quiet or self._is_always_quiet)
                logits += LIMIT + logit
                at = np.minimum(np.maximum(logits, 0, out=logits), 2 * LIMIT, out=logits)
                chances = SQUASH[at]
                cut = coder(group[start - first : end - first], chances)
                self._learn(spots, factors, cut * float(ONE) - chances, SPREAD[at])
                is_quiet = int(np.count_nonzero(cut)) * QUIET < end - start

    def _ends(self) -> Iterator[tuple[int, int]]:
        """Where blocks start and end."""
        start, num_coded = 0, len(self.order)
        while start < num_coded:
            end = min(start + max(64, min(start >> 3, self.num_weights >> 8)), num_coded)
            yield start, end
            start = end

    def _look(self, places: Integers) -> _Spots:
        bits = self._bits[places]
        levels = ((bits >> 16) & 0x7FFF).astype(np.int64)
        levels -= self._lowest
        np.minimum(np.maximum(levels, 0, out=levels), (OCTAVES << 7) - 1, out=levels)
        rows = places // self._num_columns
        signs = np.where(bits >> 31, np.int32(-1), np.int32(1))
        return _Spots(levels >> 4, levels >> 6, rows, places - rows * self._num_columns, signs)

    def _predict(self, spots: _Spots, is_quiet: bool) -> tuple[npt.NDArray[np.int32], tuple[Factors, Factors] | None]:
        """Logits, and the rows' and columns' (sets, weights) parameters; none if they are told by magnitude alone."""
        logits = self._curve.shown[spots.bins] + self._own.shown[spots.coarse]
        if is_quiet:
            return logits, None
        by_row = self._rows.parameters.shown.take(spots.rows, axis=1)
        by_column = self._columns.parameters.shown.take(spots.columns, axis=1)
        logits += by_row[0]
        logits += by_column[0]
        products = by_row[1:] * by_column[1:]
        products >>= SHOWN
        products *= spots.signs
        for product in products:
            logits += product
        return logits, (by_row, by_column)

    def _learn(self, spots: _Spots, factors: tuple[Factors, Factors] | None, errors: Floats, spread: Floats) -> None:
        for parameters, places in ((self._curve, spots.bins), (self._own, spots.coarse)):
            gradient, curvature = parameters.sum(places, errors), parameters.sum(places, spread)
            parameters.step(gradient.astype(np.int64), curvature.astype(np.int64))
        if factors is None:
            return
        signed, squares = errors * spots.signs, (self._columns.mean_squares(), self._rows.mean_squares())
        for side, places, others, square in zip(
            (self._rows, self._columns), (spots.rows, spots.columns), factors[::-1], squares, strict=True
        ):
            amounts = signed * others
            amounts[0] = errors
            side.step(places, amounts, spread, square)


def _groups(blocks: Iterator[tuple[int, int]]) -> Iterator[list[tuple[int, int]]]:
    """Blocks, so many together that looking up their weights at once takes less time than one by one."""
    group: list[tuple[int, int]] = []
    for block in blocks:
        group.append(block)
        if block[1] - group[0][0] >= LOOKED_UP:
            yield group
            group = []
    if group:
        yield group
