"""Base and adapted networks on labeled images: from a split to features to scores."""

from collections.abc import Callable, Iterator, Sequence

import torch

from smn_cli.adapters.swap import Change
from smn_cli.backbones.loading import Backbone, check_sizes
from smn_cli.cascade.blocks import network_identity
from smn_cli.cascade.cascade import Cascade
from smn_cli.cascade.scoring import CascadeComparison, compare_cascade
from smn_cli.data.labels.eval_split import LabeledSplit
from smn_cli.evaluation.compare import (
    Comparison,
    LabeledFeatures,
    Scores,
    ScoringProtocol,
    compare,
    score,
    with_classifier,
)
from smn_cli.evaluation.neighbours import search_device
from smn_cli.features.embed import Embedding, labeled_features


def evaluate_networks(
    backbone: Backbone,
    change: Change | None,
    split: LabeledSplit,
    embedding: Embedding,
    protocol: ScoringProtocol,
    *,
    device: str = "cpu",
    progress: Callable[[int], None] | None = None,
) -> Comparison:
    """Score a base and, if there is an adapter, the adapted network on the same split.

    Args:
        backbone: the base; moved to the device and left as the base.
        change: an adapter, or another way to change the base; None scores the base alone.
        split, embedding, protocol: images, how they become features, which scores.
        device: where to embed, and, on CUDA, to look for neighbours.
        progress: called with the number of images embedded so far, over both networks.

    Raises:
        MismatchError, AdapterFileError: the adapter does not fit the base.
        DataError: an image cannot be read.
    """
    changes = [] if change is None else [change]
    embedded = embed_split(backbone, changes, split, embedding, device=device, progress=progress)
    base, *adapted = [
        score_network(features, each, split, protocol, device=device)
        for each, features in zip([None, *changes], embedded, strict=True)
    ]
    return compare(base, adapted[0] if adapted else None)


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
    device: str = "cpu",
    progress: Callable[[int], None] | None = None,
) -> Iterator[LabeledFeatures]:
    """Features of a split under a base, then under the base with each change, made as they are asked for.

    Args and errors are those of `evaluate_networks`; a change that does not fit is refused before any image is read.
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

        features = labeled_features(model, split, embedding, identity=lambda: network_identity(backbone), progress=tick)
        if change is not None:
            change.remove(model)
        yield features


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
