"""Base and adapted networks on labeled images: scores.

Of a team the first process scores; the others call `help_to_score` at the same time, and embed their share.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import torch

from smn_cli.adapters.swap import Change
from smn_cli.backbones.loading import Backbone, check_sizes
from smn_cli.backbones.stages import has_stages
from smn_cli.cascade.blocks import features_under
from smn_cli.cascade.cascade import Cascade
from smn_cli.cascade.scoring import CascadeComparison, compare_cascade
from smn_cli.data.labels.eval_split import LabeledSplit
from smn_cli.embedding import embed_split
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
from smn_cli.evaluation.low_shot import LabelSubsets, LowShotRow, LowShotScores, score_subsets, tabulate
from smn_cli.evaluation.neighbours import search_device
from smn_cli.features.embed import Embedding
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
    embedded = _embedded(
        backbone, changes, split, embedding, protocol, controls=controls, device=device, progress=progress
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


def help_to_score(
    backbone: Backbone,
    changes: Mapping[str, Change] | Cascade,
    split: LabeledSplit,
    embedding: Embedding,
    protocol: ScoringProtocol,
    *,
    controls: bool = False,
    device: str = "cpu",
) -> None:
    """What a process that is not its team's first does while that one is in `compare_networks` or `evaluate_cascade`.

    Args and errors are those of the two.
    """
    if isinstance(changes, Cascade):
        dispatcher = changes.dispatcher
        others = [e for e in changes.experts if e.header.adapted_digest != dispatcher.header.adapted_digest]
        check_sizes(backbone, [embedding.preprocessing.size])
        backbone.model.to(torch.device(device)).to(memory_format=torch.channels_last)
        paths = [*split.train_paths, *split.test_paths]
        for change in (None, dispatcher, *others):
            features_under(change, backbone, paths, embedding)
        return
    for _ in _embedded(backbone, changes, split, embedding, protocol, controls=controls, device=device):
        pass  # the first process has the features
    if controls:
        _embed_at_native(backbone, split, embedding, device=device)


def _embedded(
    backbone: Backbone,
    changes: Mapping[str, Change],
    split: LabeledSplit,
    embedding: Embedding,
    protocol: ScoringProtocol,
    *,
    controls: bool,
    device: str,
    progress: Callable[[int], None] | None = None,
) -> Iterator[LabeledFeatures]:
    """Features that `compare_networks` needs, of the base first, made as they are asked for."""
    check_sizes(backbone, [embedding.preprocessing.size])
    return embed_split(
        backbone,
        list(changes.values()),
        split,
        embedding,
        with_stages=controls and protocol.knn and has_stages(backbone.model, embedding.preprocessing.size),
        device=device,
        progress=progress,
    )


def _native_base(
    backbone: Backbone, split: LabeledSplit, embedding: Embedding, protocol: ScoringProtocol, *, device: str
) -> NativeBase | None:
    """The base alone at its own size, if the images have another; with the milliseconds of both."""
    features = _embed_at_native(backbone, split, embedding, device=device)
    if features is None:
        return None
    scores = score_network(features, None, split, protocol, device=device)
    where, own = torch.device(device), backbone.native_size
    sizes = (embedding.preprocessing.size, own)
    cost = {each: milliseconds_an_image(backbone.model, each, where, embedding.precision) for each in sizes}
    return NativeBase(own, compare(scores, None), cost)


def _embed_at_native(
    backbone: Backbone, split: LabeledSplit, embedding: Embedding, *, device: str
) -> LabeledFeatures | None:
    """Of the base at its own size, if the images have another."""
    own = backbone.native_size
    if own == embedding.preprocessing.size:
        return None
    at_own = replace(embedding, preprocessing=replace(embedding.preprocessing, size=own))
    return next(embed_split(backbone, [], split, at_own, device=device))


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
