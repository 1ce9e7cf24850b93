"""A network and what reads its features: learned from images, and held against the network before it is used."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from smn_cli.adapters.readout import StoredReadout, store_readout
from smn_cli.backbones.loading import Backbone
from smn_cli.backbones.stages import stage_features
from smn_cli.errors import DataError, MismatchError
from smn_cli.evaluation.features import Network, extract_features, on_device
from smn_cli.evaluation.readouts import fit_linear_readout
from smn_cli.features.embed import Embedding, batch_size_for
from smn_cli.schemas.readout_kinds import LinearKind

MIN_IMAGES = 16
"""From fewer there is no direction to learn but the one between two of them."""


def learn_readout(
    model: nn.Module,
    paths: Sequence[Path],
    kind: LinearKind,
    embedding: Embedding,
    *,
    progress: Callable[[int], None] | None = None,
) -> StoredReadout:
    """Fit a readout to images under one network, as an adapter carries it.

    Args:
        model: a backbone without classifier, in eval mode, on its device.
        paths: unlabeled images.
        kind: "centred", "whitened" or "stages".
        embedding: how images become features; its cache is not used.
        progress: called with the number of images done.

    Raises:
        DataError: fewer than 16 images, one that cannot be read, or features that are no finite numbers.
        BackboneError: the network has no stages to read.
    """
    if len(paths) < MIN_IMAGES:
        raise DataError(f"`readout` {kind} cannot be learned from {len(paths)} images: expected {MIN_IMAGES} or more")
    device = next(model.parameters()).device
    batch_size = batch_size_for(device, embedding.preprocessing.size)
    batches = embedding.batches(paths, batch_size)
    network = on_device(_what_it_takes(model, kind), device, embedding.precision)
    features = extract_features(network, batches, num_images=len(paths), progress=progress)
    if not bool(features.isfinite().all()):
        raise DataError(f"`readout` {kind}: some features are infinite or not numbers on these images")
    try:
        return store_readout(fit_linear_readout(features, kind), kind, num_images=len(paths))
    except ValueError as error:
        raise DataError(f"`readout` {kind}: {error}") from None


def network_for(model: nn.Module, readout: StoredReadout | None) -> Network:
    """A function from images (B, 3, H, W) to what a readout takes (B, F); without one, to the network's features."""
    return model if readout is None else _what_it_takes(model, readout.kind)


def check_readout(readout: StoredReadout, backbone: Backbone) -> None:
    """Refuse a readout of features that the network does not have; their number depends on no image's size.

    Args:
        readout: of an adapter over this backbone.
        backbone: on any device; one that can be run, if the readout reads the stages.

    Raises:
        MismatchError: its features are more or fewer.
        BackboneError: it reads the stages, and the network has none.
    """
    width, what = backbone.num_features, "features"
    if readout.reads_stages:
        device, size = next(backbone.model.parameters()).device, backbone.native_size
        with torch.inference_mode():
            width = stage_features(backbone.model)(torch.zeros(1, 3, size, size, device=device)).shape[1]
        what = "numbers of its stages"
    if readout.num_features != width:
        raise MismatchError(
            f"the adapter's readout takes {readout.num_features} {what}, and {backbone.arch} has {width}: leave the "
            "readout out, or pack the adapter again"
        )


def _what_it_takes(model: nn.Module, kind: LinearKind) -> Callable[[Tensor], Tensor]:
    return stage_features(model) if kind == "stages" else model
