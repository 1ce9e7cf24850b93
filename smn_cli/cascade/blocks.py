"""Features of images under a dispatcher and its experts: the blocks that a combination takes."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from smn_cli.adapters.adapter import Adapter
from smn_cli.adapters.fingerprint import fingerprint
from smn_cli.adapters.swap import Change
from smn_cli.backbones.loading import Backbone
from smn_cli.features.embed import Embedding, image_features

Progress = Callable[[int], None]


def network_identity(backbone: Backbone) -> dict[str, str]:
    """What tells a network from every other one, with what is on it now; for the cache of features."""
    state = backbone.model.state_dict()
    return {"arch": backbone.arch, "layers": str(backbone.model), "state": fingerprint(state).digest}


def features_under(
    change: Change | None,
    backbone: Backbone,
    paths: Sequence[Path],
    embedding: Embedding,
    *,
    progress: Progress | None = None,
) -> Tensor:
    """Features of images under a changed base, which is left as the base.

    Args:
        change: an adapter; None for the base itself.
        backbone: the base, on its device.
        paths: N images.
        embedding: how.
        progress: called with the number of images done.

    Returns:
        (N, F) float32 on the CPU.

    Raises:
        MismatchError, AdapterFileError: the adapter does not fit the base.
        DataError: an image cannot be read.
    """
    model = backbone.model
    if change is not None:
        change.apply(model)
    try:
        return image_features(model, paths, embedding, identity=lambda: network_identity(backbone), progress=progress)
    finally:
        if change is not None:
            change.remove(model)


def expert_blocks(
    dispatcher: Adapter,
    experts: Sequence[Adapter],
    dispatched: Tensor,
    backbone: Backbone,
    paths: Sequence[Path],
    embedding: Embedding,
    *,
    routes: Tensor | None = None,
    progress: Progress | None = None,
) -> list[Tensor]:
    """The blocks of a cascade, E + 1 times (N, F), the dispatcher's first.

    Args:
        dispatcher, experts: adapters of the base. An expert that is the dispatcher itself is not asked again.
        dispatched: (N, F) features under the dispatcher.
        backbone: the base, on its device; left as the base.
        paths: N images.
        embedding: how.
        routes: (N,) int64; where given, experts see their own images only, and their other rows are zero.
        progress: called with the number of images that experts have seen.

    Raises:
        MismatchError, AdapterFileError: an adapter does not fit the base.
        DataError: an image cannot be read.
    """
    blocks, num_done = [dispatched], 0
    for number, expert in enumerate(experts):
        rows = torch.arange(len(paths)) if routes is None else (routes == number).nonzero()[:, 0]
        if expert.header.adapted_digest == dispatcher.header.adapted_digest:
            found = dispatched[rows]
        elif len(rows):
            own = [paths[row] for row in rows.tolist()]
            tick = None if progress is None else _after(progress, num_done)
            found = features_under(expert, backbone, own, embedding, progress=tick)
        else:
            found = dispatched[:0]
        blocks.append(torch.zeros_like(dispatched).index_copy_(0, rows, found))
        num_done += len(rows)
    return blocks


def _after(progress: Progress, num_done: int) -> Progress:
    return lambda done: progress(num_done + done)
