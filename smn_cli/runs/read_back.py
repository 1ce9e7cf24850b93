"""A packed adapter held against the network that was trained, before anyone gets it."""

from collections.abc import Mapping
from copy import deepcopy

import numpy as np
import torch
from torch import Tensor

from smn_cli.adapters.adapter import Adapter, adapter_from_bytes
from smn_cli.backbones.loading import Backbone
from smn_cli.errors import MismatchError
from smn_cli.masking.backbone import run_backbone
from smn_cli.masking.binarize import effective_weight
from smn_cli.seeding import fixed_generator
from smn_cli.threads import computing_with

_NUM_IMAGES = 2


def read_back(
    adapter: Adapter,
    backbone: Backbone,
    masks: Mapping[str, Tensor],
    norm_stats: Mapping[str, Tensor],
    *,
    size: int,
    num_threads: int | None = None,
) -> Adapter:
    """The adapter as its own bytes give it, if whoever applies them gets the network that was trained.

    That network runs as training evaluates it, with effective weights in place of its own; what the bytes rebuild is
    loaded into a network as users load a checkpoint. Both see the same few random images, on the CPU, and have to
    compute the same bits. Neither touches the backbone.

    Args:
        adapter: just made.
        backbone: its base, in eval mode.
        masks: of the run, by first names.
        norm_stats: as the adapter should carry them.
        size: of the run's images, in pixels.
        num_threads: that torch computes features with; None for as many as it has now.

    Raises:
        MismatchError: the features differ.
    """
    num_threads = torch.get_num_threads() if num_threads is None else num_threads
    again = adapter_from_bytes(adapter.to_bytes())
    network = deepcopy(backbone.model).cpu()
    base = network.state_dict()
    images = torch.rand(_NUM_IMAGES, 3, size, size, generator=fixed_generator())
    with torch.inference_mode():
        # in the memory order of the network's own, which a product loses where a convolution has one channel
        weights = {
            name: torch.empty_like(base[name]).copy_(effective_weight(base[name], mask.cpu()))
            for name, mask in masks.items()
        }
        with computing_with(num_threads):
            live = run_backbone(network, images, weights | {name: tensor.cpu() for name, tensor in norm_stats.items()})
        network.load_state_dict(again.rebuild(base))
        network.train().eval()  # a new mode makes attention forget what it keeps of its weights
        with computing_with(num_threads):
            loaded = network(images)
    if not np.array_equal(live.numpy(), loaded.numpy(), equal_nan=True):
        raise MismatchError(
            f"the packed adapter does not compute the features of the run's network (up to "
            f"{(live - loaded).abs().max():.2g} apart), so it is not made: {backbone.arch} holds or keeps weights in a "
            "way that smn does not know; choose another `arch`, and please report this one"
        )
    return again
