"""The k training rows most alike, in bounded memory: tiles of test and training rows, the best of all so far kept.

The rule of order: the higher cosine first, and of equal cosines the earlier training row. Cosines are float32 numbers,
computed in blocks whose shapes do not depend on the tiles; so neither do the neighbours, to the bit.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

_SHORTEST = 1e-12
"""A row shorter than this has no direction: its cosines are 0."""

BLOCK_TEST, BLOCK_TRAIN = 256, 4096
"""Test and training rows of one matrix product; another shape may round the last bit of a cosine differently."""

MAX_ROWS = 32_768
"""Training rows of a tile, at most: with more, topk is no faster."""

_OPEN_SHARE = 8
"""Telling equal cosines apart takes some 20 bytes each: this part of the rows at a time, so that it is fewer than 4."""


class Neighbours(NamedTuple):
    """Cosines (T, k) float32 and positions among the training rows (T, k) int64, nearest first."""

    cosines: Tensor
    positions: Tensor


def search_device(device: str) -> torch.device | None:
    """Where to look for neighbours of features from a device: on CUDA there, else where the features are."""
    return torch.device(device) if torch.device(device).type == "cuda" else None


def nearest(
    train: Tensor, test: Tensor, *, k: int, device: torch.device, chunk_bytes: int
) -> Iterator[tuple[slice, Neighbours]]:
    """Neighbours of all test rows, a chunk of them at a time.

    Args:
        train: (N, F) of any floating type on any device; never copied as a whole.
        test: (T, F), likewise.
        k: neighbours, 1 to N.
        device: where cosines are computed, in float32.
        chunk_bytes: about the most memory used at a time beyond the two arguments; one block of 256 test and 4,096
            training rows, and k neighbours of each, are worked on whatever it says.

    Yields:
        Which test rows, and their neighbours on `device`.
    """
    num_test, num_rows = tile_shape(len(test), len(train), test.shape[1], k=k, chunk_bytes=chunk_bytes)
    space = torch.empty(num_test * num_rows, device=device)  # of every tile in turn
    for first in range(0, len(test), num_test):
        rows = slice(first, min(first + num_test, len(test)))
        directions = test[rows].to(device, torch.float32)
        directions = directions / _norms(directions)
        best: Neighbours | None = None
        for start in range(0, len(train), num_rows):
            cosines = _cosines(directions, train[start : start + num_rows], space)
            best = _merged(best, _largest(cosines, min(k, cosines.shape[1])), start, k)
        assert best is not None
        yield rows, best


def tile_shape(num_test: int, num_train: int, width: int, *, k: int, chunk_bytes: int) -> tuple[int, int]:
    """Test and training rows of a tile whose parts fit into `chunk_bytes`.

    Beside one block of training rows as float32 and its cosines, a test row takes 4 bytes a training row for its
    cosines, as much for telling equal ones apart, twice its own features, and what is kept and merged of its
    neighbours.
    """
    left = chunk_bytes - 4 * BLOCK_TRAIN * (width + BLOCK_TEST)
    per_test = 2 * 4 * width + 48 * k
    fitting = (left // BLOCK_TEST - per_test) // 8 // BLOCK_TRAIN * BLOCK_TRAIN
    rows = min(num_train, max(BLOCK_TRAIN, min(MAX_ROWS, fitting)))
    test = left // (8 * rows + per_test) // BLOCK_TEST * BLOCK_TEST
    return min(num_test, max(BLOCK_TEST, test)), rows


def _cosines(directions: Tensor, rows: Tensor, space: Tensor) -> Tensor:
    """(T, C) cosines of unit-length directions (T, F) and training rows (C, F) as they stand, written to `space`."""
    cosines = space[: len(directions) * len(rows)].view(len(directions), len(rows))
    for start in range(0, len(rows), BLOCK_TRAIN):
        block = rows[start : start + BLOCK_TRAIN].to(directions)
        norms = _norms(block).T
        for first in range(0, len(directions), BLOCK_TEST):
            some = slice(first, first + BLOCK_TEST)
            torch.div(directions[some] @ block.T, norms, out=cosines[some, start : start + BLOCK_TRAIN])
    return cosines


def _norms(rows: Tensor) -> Tensor:
    """Lengths (R, 1) of rows (R, F)."""
    norms: Tensor = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    return norms.clamp_min_(_SHORTEST)


def _largest(cosines: Tensor, k: int) -> Neighbours:
    """The k first of every row (T, C) by the rule of order; k at most C."""
    num_columns = cosines.shape[1]
    values, positions = cosines.topk(min(k + 1, num_columns), dim=1)
    # topk gives equal values in any order, and any of those that equal the last one
    has_equals = (values[:, 1:] == values[:, :-1]).any(dim=1)
    is_open = values[:, -1] == values[:, -2] if num_columns > k else torch.zeros_like(has_equals)
    values, positions = values[:, :k], positions[:, :k]
    for rows in torch.split(is_open.nonzero().flatten(), max(1, len(cosines) // _OPEN_SHARE)):
        copied = cosines[rows]
        positions[rows] = _first_of_equals(copied, values[rows, -1:], k)
        values[rows] = copied.gather(1, positions[rows])
    if bool(has_equals.any()):
        ascending, order = positions[has_equals].sort(dim=1)
        ordered, order = values[has_equals].gather(1, order).sort(dim=1, descending=True, stable=True)
        values[has_equals], positions[has_equals] = ordered, ascending.gather(1, order)
    return Neighbours(values, positions)


def _first_of_equals(cosines: Tensor, last: Tensor, k: int) -> Tensor:
    """Positions (M, k) of the k largest; of those that equal `last` (M, 1), the k-th, the first."""
    is_above, is_equal = ~(cosines <= last), cosines == last  # topk takes NaN for the largest
    room = k - is_above.sum(dim=1, keepdim=True)
    is_taken = is_above | (is_equal & (is_equal.cumsum(dim=1, dtype=torch.int32) <= room))
    return is_taken.nonzero()[:, 1].view(len(cosines), k)


def _merged(best: Neighbours | None, found: Neighbours, start: int, k: int) -> Neighbours:
    """The k first of what was best before and what a later tile, from training row `start` on, has found."""
    if best is None:
        return found
    values = torch.cat([best.cosines, found.cosines], dim=1)
    # both are in order and all of `best` comes first: a stable sort keeps the rule
    values, order = values.sort(dim=1, descending=True, stable=True)
    positions = torch.cat([best.positions, found.positions + start], dim=1).gather(1, order)
    return Neighbours(values[:, :k].contiguous(), positions[:, :k].contiguous())
