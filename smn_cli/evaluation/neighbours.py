"""The k most alike rows of a bank, in bounded memory: tiles of queries and bank, the best of all tiles so far kept.

The rule of order: the higher cosine first, and of equal cosines the row that comes first in the bank. Cosines are
float32 numbers, computed in blocks whose shapes do not depend on the tiles; so neither do the neighbours, to the bit.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

_SHORTEST = 1e-12
"""A row shorter than this has no direction: its cosines are 0."""

BLOCK_QUERIES, BLOCK_ROWS = 256, 4096
"""Queries and bank rows of one matrix product; another shape may round the last bit of a cosine differently."""

MAX_ROWS = 32_768
"""Bank rows of a tile, at most: with more, topk is no faster."""

_OPEN_SHARE = 8
"""Telling equal cosines apart takes some 20 bytes each: this part of the rows at a time, so that it is fewer than 4."""


class Neighbours(NamedTuple):
    """Cosines (Q, k) float32 and positions in the bank (Q, k) int64, nearest first."""

    cosines: Tensor
    positions: Tensor


def search_device(device: str) -> torch.device | None:
    """Where to look for neighbours of features from a device: on CUDA there, else where the features are."""
    return torch.device(device) if torch.device(device).type == "cuda" else None


def nearest(
    bank: Tensor, queries: Tensor, *, k: int, device: torch.device, chunk_bytes: int
) -> Iterator[tuple[slice, Neighbours]]:
    """Neighbours of all queries, a chunk of queries at a time.

    Args:
        bank: (N, F) of any floating type on any device; never copied as a whole.
        queries: (Q, F), likewise.
        k: neighbours, 1 to N.
        device: where cosines are computed, in float32.
        chunk_bytes: about the most memory used at a time beyond the two arguments; one block of 256 queries and 4,096
            rows, and k neighbours of each, are worked on whatever it says.

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
            cosines = _cosines(directions, bank[start : start + num_rows], space)
            best = _merged(best, _largest(cosines, min(k, cosines.shape[1])), start, k)
        assert best is not None
        yield rows, best


def tile_shape(num_queries: int, num_bank: int, width: int, *, k: int, chunk_bytes: int) -> tuple[int, int]:
    """Queries and bank rows of a tile whose parts fit into `chunk_bytes`.

    Beside one block of the bank as float32 and its cosines, a query takes 4 bytes a row of the tile for its cosines, as
    much for telling equal ones apart, twice its own features, and what is kept and merged of its neighbours.
    """
    left = chunk_bytes - 4 * BLOCK_ROWS * (width + BLOCK_QUERIES)
    per_query = 2 * 4 * width + 48 * k
    fitting = (left // BLOCK_QUERIES - per_query) // 8 // BLOCK_ROWS * BLOCK_ROWS
    rows = min(num_bank, max(BLOCK_ROWS, min(MAX_ROWS, fitting)))
    queries = left // (8 * rows + per_query) // BLOCK_QUERIES * BLOCK_QUERIES
    return min(num_queries, max(BLOCK_QUERIES, queries)), rows


def _cosines(directions: Tensor, rows: Tensor, space: Tensor) -> Tensor:
    """(Q, C) cosines of unit-length directions (Q, F) and rows (C, F) as they stand in the bank, written to `space`."""
    cosines = space[: len(directions) * len(rows)].view(len(directions), len(rows))
    for start in range(0, len(rows), BLOCK_ROWS):
        block = rows[start : start + BLOCK_ROWS].to(directions)
        norms = _norms(block).T
        for first in range(0, len(directions), BLOCK_QUERIES):
            some = slice(first, first + BLOCK_QUERIES)
            torch.div(directions[some] @ block.T, norms, out=cosines[some, start : start + BLOCK_ROWS])
    return cosines


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
    """The k first of what was best before and what a later tile, from bank row `start` on, has found."""
    if best is None:
        return found
    values = torch.cat([best.cosines, found.cosines], dim=1)
    # both are in order and all of `best` comes first in the bank: a stable sort keeps the rule
    values, order = values.sort(dim=1, descending=True, stable=True)
    positions = torch.cat([best.positions, found.positions + start], dim=1).gather(1, order)
    return Neighbours(values[:, :k].contiguous(), positions[:, :k].contiguous())
