"""Who is nearest to whom among all images: exactly, or of very many by an inverted file of faiss.

The inverted file sorts rows into cells around centres of k-means, and looks into the cells nearest to a row. It is the
same to the bit from run to run with the same threads; its recall and seconds are in docs/scale.md.
"""

from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from smn_cli.errors import UsageError
from smn_cli.features.row_store import pieces

MAX_EXACT = 50_000
"""Images up to which every row is held against every other one."""
CELLS_A_ROOT, CELLS_SEEN, ROWS_A_CELL = 4, 64, 64
"""Cells for each root of the number of rows; how many of them a row looks into; rows a cell that k-means sees."""
_ROWS = 1024


def check_number(num_images: int) -> None:
    """Refuse so many images that faiss is needed, where it is not installed; before any of them is looked at.

    Raises:
        UsageError: pip knows how to get it.
    """
    if num_images > MAX_EXACT:
        _faiss()


def nearest_others(space: Tensor, num: int) -> tuple[Tensor, Tensor]:
    """The neighbours of every row.

    Args:
        space: (N, D) rows of unit length, of any floating type.
        num: k, at most N - 1.

    Returns:
        (N, k) int64 places, the nearest first, and (N, k) float32 cosines; nobody is a neighbour of itself. Of more
        than `MAX_EXACT` rows some of the nearest are missed.

    Raises:
        UsageError: there are so many that faiss is needed, and it is not installed.
    """
    if len(space) <= MAX_EXACT:
        return _exact(space, torch.arange(len(space)), num)
    return _approximate(space, num)


def _exact(space: Tensor, of: Tensor, num: int) -> tuple[Tensor, Tensor]:
    """For the rows at some places (M,)."""
    places, likeness, everyone = [], [], space.float()
    for first in range(0, len(of), _ROWS):
        own = of[first : first + _ROWS]
        rows = everyone[own] @ everyone.T
        rows[torch.arange(len(rows)), own] = -torch.inf
        found = rows.topk(num, dim=1)
        places.append(found.indices)
        likeness.append(found.values)
    return torch.cat(places), torch.cat(likeness)


def _approximate(space: Tensor, num: int) -> tuple[Tensor, Tensor]:
    faiss = _faiss()
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(torch.get_num_threads())
    try:
        index = _index(faiss, space)
        places, likeness = torch.empty(len(space), num, dtype=torch.int64), torch.empty(len(space), num)
        for part in pieces(len(space)):
            cosines, found = map(torch.from_numpy, index.search(space[part].float().numpy(), num + 1))
            own = torch.arange(part.start, part.stop)[:, None]
            is_own = found == own
            is_own[~is_own.any(dim=1), -1] = True  # copies of an image may hide it from itself
            places[part] = found[~is_own].view(-1, num)
            likeness[part] = cosines[~is_own].view(-1, num)
    finally:
        faiss.omp_set_num_threads(threads)
    lonely = (places < 0).any(dim=1).nonzero()[:, 0]  # the cells that they saw are too empty
    if len(lonely):
        places[lonely], likeness[lonely] = _exact(space, lonely, num)
    return places, likeness


def _index(faiss: ModuleType, space: Tensor) -> Any:
    """An inverted file of all rows, in half precision."""
    num_cells = int(CELLS_A_ROOT * len(space) ** 0.5)
    centres = faiss.IndexFlatIP(space.shape[1])
    index = faiss.IndexIVFScalarQuantizer(
        centres, space.shape[1], num_cells, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT, False
    )
    index.cp.seed, index.cp.niter, index.cp.min_points_per_centroid = 0, 10, 1
    seen = min(len(space), ROWS_A_CELL * num_cells)
    index.train(space[:: -(-len(space) // seen)].float().numpy())
    for part in pieces(len(space)):
        index.add(space[part].float().numpy())
    index.nprobe = CELLS_SEEN
    return index


def _faiss() -> ModuleType:
    try:
        import faiss
    except ImportError:
        raise UsageError(
            f"neighbours among more than {MAX_EXACT:,} images are looked for by faiss, which is not installed: pip "
            "install 'smn-cli[scale]', or give fewer images or `steps`"
        ) from None
    module: ModuleType = faiss
    return module
