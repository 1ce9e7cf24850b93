"""The k most alike rows of a bank, in bounded memory: tiles of queries and bank, the best of all tiles so far kept.

The rule of order, the same whatever the tiles are: the higher cosine first, and of equal cosines the row that comes
first in the bank. Cosines are float32 numbers; a matrix product of another shape may round the last bit of one
differently, so equality of cosines that are equal by arithmetic alone holds for rows that are exact in float32.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

_SHORTEST = 1e-12
"""A row shorter than this has no direction: its cosines are 0."""


class Neighbours(NamedTuple):
    """Cosines (Q, k) float32 and positions in the bank (Q, k) int64, nearest first."""

    cosines: Tensor
    positions: Tensor


def nearest(
    bank: Tensor, queries: Tensor, *, k: int, device: torch.device, chunk_bytes: int
) -> Iterator[tuple[slice, Neighbours]]:
    """Neighbours of all queries, a chunk of queries at a time.

    Args:
        bank: (N, F) of any floating type on any device; never copied as a whole.
        queries: (Q, F), likewise.
        k: neighbours, 1 to N.
        device: where cosines are computed, in float32.
        chunk_bytes: about the most memory used at a time beyond the two arguments; at least one query and one row of
            the bank, and k neighbours, are worked on whatever it says.

    Yields:
        Which queries, and their neighbours on `device`.
    """
    num_queries, num_rows = tile_shape(len(queries), len(bank), queries.shape[1], k=k, chunk_bytes=chunk_bytes)
    space = torch.empty(num_queries * num_rows, device=device)  # of every tile in turn
    for first in range(0, len(queries), num_queries):
        rows = slice(first, min(first + num_queries, len(queries)))
        directions = queries[rows].to(device, torch.float32)
        directions = directions / _norms(directions)
        best: Neighbours | None = None
        for start in range(0, len(bank), num_rows):
            tile = bank[start : start + num_rows].to(device, torch.float32)
            cosines = space[: len(directions) * len(tile)].view(len(directions), len(tile))
            torch.mm(directions, tile.T, out=cosines).div_(_norms(tile).T)
            best = _merged(best, _largest(cosines, min(k, len(tile))), start, k)
            del tile  # before the next one is made
        assert best is not None
        yield rows, best


def tile_shape(num_queries: int, num_bank: int, width: int, *, k: int, chunk_bytes: int) -> tuple[int, int]:
    """Queries and bank rows of a tile whose parts fit into `chunk_bytes`.

    Three eighths are for rows of the bank as float32, a quarter for their cosines, as much for telling equal ones
    apart, and a sixteenth each for the queries and for the neighbours found so far.
    """
    rows = max(1, min(num_bank, chunk_bytes * 3 // 8 // (4 * width)))
    per_query = max(4 * (4 * rows), 16 * (4 * width), 16 * (48 * k))
    return max(1, min(num_queries, chunk_bytes // per_query)), rows


def _norms(rows: Tensor) -> Tensor:
    """Lengths (R, 1) of rows (R, F)."""
    norms: Tensor = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    return norms.clamp_min_(_SHORTEST)


def _largest(cosines: Tensor, k: int) -> Neighbours:
    """The k first of every row (Q, C) by the rule of order; k at most C."""
    num_columns = cosines.shape[1]
    values, positions = cosines.topk(min(k + 1, num_columns), dim=1)
    # topk gives equal values in any order, and any of those that equal the last one
    has_equals = (values[:, 1:] == values[:, :-1]).any(dim=1)
    is_open = values[:, -1] == values[:, -2] if num_columns > k else torch.zeros_like(has_equals)
    values, positions = values[:, :k], positions[:, :k]
    if bool(is_open.any()):
        rows = cosines[is_open]
        positions[is_open] = _first_of_equals(rows, values[is_open, -1:], k)
        values[is_open] = rows.gather(1, positions[is_open])
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
    """The k first of what was best before and what a later tile, from bank row `start` on, has found."""
    if best is None:
        return found
    values = torch.cat([best.cosines, found.cosines], dim=1)
    # both are in order and all of `best` comes first in the bank: a stable sort keeps the rule
    values, order = values.sort(dim=1, descending=True, stable=True)
    positions = torch.cat([best.positions, found.positions + start], dim=1).gather(1, order)
    return Neighbours(values[:, :k].contiguous(), positions[:, :k].contiguous())
