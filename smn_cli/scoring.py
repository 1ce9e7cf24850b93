"""Base and adapted networks on images: from paths to features, and with labels to scores."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from smn_cli.adapters.readout import StoredReadout
from smn_cli.adapters.swap import Change
from smn_cli.backbones.loading import Backbone, check_sizes
from smn_cli.backbones.stages import has_stages
from smn_cli.cascade.blocks import network_identity
from smn_cli.cascade.cascade import Cascade
from smn_cli.cascade.scoring import CascadeComparison, compare_cascade
from smn_cli.data.images.validate import ImageSet
from smn_cli.data.labels.eval_split import LabeledSplit
from smn_cli.data.views.loader import image_batches
from smn_cli.evaluation.compare import (
    Comparison,
    LabeledFeatures,
    Scores,
    ScoringProtocol,
    compare,
    score,
    with_classifier,
)
from smn_cli.evaluation.controls import NativeBase, controlled, readout_scores
from smn_cli.evaluation.features import on_device
from smn_cli.evaluation.low_shot import LabelSubsets, LowShotRow, LowShotScores, score_subsets, tabulate
from smn_cli.evaluation.neighbours import search_device
from smn_cli.features.embed import Embedding, batch_size_for, labeled_features
from smn_cli.features.readout import check_readout, network_for
from smn_cli.features.timing import milliseconds_an_image


def evaluate_networks(
    backbone: Backbone,
    change: Change | None,
    split: LabeledSplit,
    embedding: Embedding,
    protocol: ScoringProtocol,
    *,
    controls: bool = False,
    device: str = "cpu",
    progress: Callable[[int], None] | None = None,
) -> Comparison:
    """Score a base and, if there is an adapter, the adapted network on the same split.

    Args:
        backbone: the base; moved to the device and left as the base.
        change: an adapter, or another way to change the base; None scores the base alone.
        split, embedding, protocol: images, how they become features, which scores.
        controls: whether to put beside them what needs no training, see `ControlledComparison`.
        device: where to embed, and, on CUDA, to look for neighbours.
        progress: called with the number of images embedded so far, over both networks.

    Raises:
        MismatchError, AdapterFileError: the adapter does not fit the base.
        DataError: an image cannot be read.
    """
    changes = {} if change is None else {"": change}
    comparisons, _ = compare_networks(
        backbone, changes, split, embedding, protocol, controls=controls, device=device, progress=progress
    )
    return comparisons[""]


def compare_networks(
    backbone: Backbone,
    changes: Mapping[str, Change],
    split: LabeledSplit,
    embedding: Embedding,
    protocol: ScoringProtocol,
    *,
    subsets: Sequence[LabelSubsets] = (),
    controls: bool = False,
    device: str = "cpu",
    progress: Callable[[int], None] | None = None,
) -> tuple[dict[str, Comparison], list[LowShotRow]]:
    """Score a base and any number of adapted networks on the same split.

    Args:
        changes: by name; without any, the base alone is scored, under the empty name.
        subsets: parts of the labels to score with, too.
        controls: whether to put beside them what needs no training, as `ControlledComparison`.

    The others and errors are those of `evaluate_networks`; progress is over all networks.

    Returns:
        Comparisons with the base by name, and the table of few labels, empty without `subsets`.
    """
    scores: dict[str, Scores] = {}
    few: dict[str, list[LowShotScores]] = {}
    where = search_device(device)
    readouts: dict[str, dict[str, Scores]] = {}
    check_sizes(backbone, [embedding.preprocessing.size])
    embedded = embed_split(
        backbone,
        list(changes.values()),
        split,
        embedding,
        with_stages=controls and protocol.knn and has_stages(backbone.model, embedding.preprocessing.size),
        device=device,
        progress=progress,
    )
    base_features = next(embedded)
    base = score_network(base_features, None, split, protocol, device=device)
    base_few = score_subsets(base_features, subsets, protocol, device=where)
    base_readouts = readout_scores(base_features, protocol, device=where) if controls else {}
    del base_features  # the next are as large
    for (name, change), features in zip(changes.items(), embedded, strict=True):
        scores[name] = score_network(features, change, split, protocol, device=device)
        few[name] = score_subsets(features, subsets, protocol, device=where)
        readouts[name] = readout_scores(features, protocol, device=where) if controls else {}
    comparisons = {name: compare(base, adapted) for name, adapted in scores.items()} or {"": compare(base, None)}
    if controls:
        at_native = _native_base(backbone, split, embedding, protocol, device=device)
        comparisons = {
            name: controlled(each, base_readouts, readouts.get(name, {}), at_native and at_native.beside(each.adapted))
            for name, each in comparisons.items()
        }
    return comparisons, tabulate(subsets, split.train_labels, base_few, few)


def _native_base(
    backbone: Backbone, split: LabeledSplit, embedding: Embedding, protocol: ScoringProtocol, *, device: str
) -> NativeBase | None:
    """The base alone at its own size, if the images have another; with the milliseconds of both."""
    own, size = backbone.native_size, embedding.preprocessing.size
    if own == size:
        return None
    at_own = replace(embedding, preprocessing=replace(embedding.preprocessing, size=own))
    features = next(embed_split(backbone, [], split, at_own, device=device))
    scores = score_network(features, None, split, protocol, device=device)
    where = torch.device(device)
    cost = {each: milliseconds_an_image(backbone.model, each, where, embedding.precision) for each in (size, own)}
    return NativeBase(own, compare(scores, None), cost)


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
    """Features of images in their order, batch by batch: never more than one is in memory.

    Args:
        backbone: the base; moved to the device and left as the base.
        change: an adapter, a cascade, or another way to change the base; None for the base itself.
        paths: N images.
        embedding: how; its cache is not used.
        device: where the network runs.
        l2: scale every image's features to length 1.
        readout: what to give of the features instead of themselves; not of a cascade.

    Yields:
        (B, F) float32 on the CPU, with a readout of d numbers (B, d).

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
    batches = image_batches(
        paths, embedding.preprocessing, batch_size=batch_size_for(where, size), num_workers=embedding.num_workers
    )
    with ExitStack() as stack:
        if isinstance(change, Cascade):
            cascade = change
            network = on_device(lambda images: cascade.embed(model, images), where, embedding.precision)
        else:
            if change is not None:
                change.apply(model)
                stack.callback(change.remove, model)
            network = on_device(network_for(model.eval(), readout), where, embedding.precision)
        for batch in batches:
            with torch.inference_mode():
                features = network(batch).float().cpu()
                features = features if readout is None else readout(features)
                features = functional.normalize(features, dim=1) if l2 else features
            yield features


def evaluate_cascade(
    backbone: Backbone,
    cascade: Cascade,
    split: LabeledSplit,
    embedding: Embedding,
    protocol: ScoringProtocol,
    *,
    device: str = "cpu",
    progress: Callable[[int], None] | None = None,
) -> CascadeComparison:
    """Score a base, a cascade over it and the cascade's parts on the same split.

    Args and errors are those of `evaluate_networks`; progress is over all E + 2 networks.
    """
    check_sizes(backbone, [embedding.preprocessing.size])
    backbone.model.to(torch.device(device)).to(memory_format=torch.channels_last)
    where = search_device(device)
    return compare_cascade(backbone, cascade, split, embedding, protocol, device=where, progress=progress)


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

    Those of the base come with its stages, if they are wanted. Args and errors are those of `evaluate_networks`; a
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


def score_network(
    features: LabeledFeatures,
    change: Change | None,
    split: LabeledSplit,
    protocol: ScoringProtocol,
    *,
    device: str = "cpu",
) -> Scores:
    """Scores of one network's features; if its change carries a classifier, also those of that, classifier.top1.

    Args:
        features: of the split under the network, see `embed_split`.
        change: what made the network of its base; None for the base.
        split: names the classes.
        protocol: which scores.
        device: where the network is; on CUDA neighbours are looked for there.
    """
    scores = score(features, protocol, device=search_device(device))
    if change is None or change.head is None:
        return scores
    return with_classifier(scores, features, change.head.classifier(), change.head.classes, split.classes)
