"""Images under a base and under the networks made of it: from paths to features."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from smn_cli.adapters.readout import StoredReadout
from smn_cli.adapters.swap import Change
from smn_cli.backbones.loading import Backbone, check_sizes
from smn_cli.cascade.blocks import network_identity
from smn_cli.cascade.cascade import Cascade
from smn_cli.data.images.validate import ImageSet
from smn_cli.data.labels.eval_split import LabeledSplit
from smn_cli.evaluation.compare import LabeledFeatures
from smn_cli.evaluation.features import on_device
from smn_cli.features.embed import Embedding, batch_size_for, labeled_features
from smn_cli.features.readout import check_readout, network_for
from smn_cli.features.shares import Shares


def embed_split(
    backbone: Backbone,
    changes: Sequence[Change],
    split: LabeledSplit,
    embedding: Embedding,
    *,
    with_stages: bool = False,
    device: str = "cpu",
    progress: Callable[[int], None] | None = None,
) -> Iterator[LabeledFeatures]:
    """Features of a split under a base, then under the base with each change, made as they are asked for.

    Those of the base come with its stages, if they are wanted; none have rows in other processes of a team than the
    first. Args and errors are those of `evaluate_networks` in
    `smn_cli.scoring`; a
    change that does not fit is refused before any image is read.
    """
    check_sizes(backbone, [embedding.preprocessing.size])
    model = backbone.model.to(torch.device(device)).to(memory_format=torch.channels_last)
    for each in changes:
        each.apply(model)
        each.remove(model)
    num_images = len(split.train_paths) + len(split.test_paths)
    for number, change in enumerate([None, *changes]):
        if change is not None:
            change.apply(model)

        def tick(done: int, done_before: int = number * num_images) -> None:
            if progress is not None:
                progress(done_before + done)

        features = labeled_features(
            model,
            split,
            embedding,
            identity=lambda: network_identity(backbone),
            with_stages=with_stages and change is None,
            progress=tick,
        )
        if change is not None:
            change.remove(model)
        yield features


def feature_batches(
    backbone: Backbone,
    change: Change | Cascade | None,
    paths: Sequence[Path],
    embedding: Embedding,
    *,
    device: str = "cpu",
    l2: bool = False,
    readout: StoredReadout | None = None,
) -> Iterator[Tensor]:
    """Features of images in their order, batch by batch: never more than one is in memory, or a run of a team's.

    Args:
        backbone: the base; moved to the device and left as the base.
        change: an adapter, a cascade, or another way to change the base; None for the base itself.
        paths: N images.
        embedding: how; its cache is not used.
        device: where the network runs.
        l2: scale every image's features to length 1.
        readout: what to give of the features instead of themselves; not of a cascade.

    Yields:
        (B, F) float32 on the CPU, with a readout of d numbers (B, d); nothing in other processes of a team than the
        first.

    Raises:
        MismatchError, AdapterFileError: the change or the readout does not fit the base.
        BackboneError: the base cannot take images of that size.
        DataError: an image cannot be read.
    """
    size = embedding.preprocessing.size
    check_sizes(backbone, [size])
    if readout is not None:
        check_readout(readout, backbone)
    where = torch.device(device)
    model = backbone.model.to(where).to(memory_format=torch.channels_last)
    batch_size = batch_size_for(where, size)
    shares = Shares(paths, batch_size, embedding.team)
    own = embedding.batches(shares.own, batch_size)
    with ExitStack() as stack:
        if isinstance(change, Cascade):
            cascade = change
            network = on_device(lambda images: cascade.embed(model, images), where, embedding.precision)
        else:
            if change is not None:
                change.apply(model)
                stack.callback(change.remove, model)
            network = on_device(network_for(model.eval(), readout), where, embedding.precision)

        @torch.inference_mode()
        def rows(images: Tensor) -> Tensor:
            features = network(images).float().cpu()
            features = features if readout is None else readout(features)
            return functional.normalize(features, dim=1) if l2 else features

        yield from shares.in_order(map(rows, own))


class ImageFeatures(NamedTuple):
    """Features of images.

    Attributes:
        features: (N, F) float32 on the CPU, a row an image; with a readout (N, d).
        paths: of the N images, sorted.
        bad: files that could not be used, each with the reason.
    """

    features: Tensor
    paths: list[Path]
    bad: dict[Path, str]


def embed_images(
    backbone: Backbone,
    change: Change | Cascade | None,
    images: ImageSet,
    embedding: Embedding,
    *,
    device: str = "cpu",
    l2: bool = False,
    readout: StoredReadout | None = None,
    progress: Callable[[int], None] | None = None,
) -> ImageFeatures:
    """Features of checked images in memory; see `feature_batches`.

    Args:
        images: as checked.
        embedding: how; its cache is not used.
        progress: called with the number of images embedded so far.
    """
    batches = feature_batches(backbone, change, images.good, embedding, device=device, l2=l2, readout=readout)
    rows: list[Tensor] = []
    for batch in batches:
        rows.append(batch)
        if progress is not None:
            progress(sum(map(len, rows)))
    return ImageFeatures(torch.cat(rows), images.good, images.bad)
