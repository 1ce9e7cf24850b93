"""A cascade on labeled images, and beside it its parts: what do experts add, and what would whitening alone?

The paper holds a whitened cascade against a dispatcher that is not. Here each of them is scored both ways. A whitening
that the file does not hold is fitted on training images, without labels; its components have variance one, so
that the linear probe's fixed penalty means the same for all.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from smn_cli.backbones.loading import Backbone
from smn_cli.cascade.blocks import expert_blocks, features_under
from smn_cli.cascade.cascade import Cascade
from smn_cli.cascade.combining import MODES, Combination, fit_combination, whiten_alone
from smn_cli.data.labels.eval_split import LabeledSplit
from smn_cli.evaluation.compare import Comparison, LabeledFeatures, Scores, ScoringProtocol, compare, score
from smn_cli.features.embed import Embedding
from smn_cli.schemas.scores import CascadeComparisonJson, WayJson, WayNoteJson

# "bank" is the word that the JSON of version 0.1 has for the training images
STORED, FITTED, NOTHING = "the cascade's training images", "the bank of this evaluation, without labels", "nothing"


@dataclass(frozen=True)
class Way:
    """One way to features: their values for training and test images (N, dim), and on what it was fitted."""

    features: Tensor
    fitted_on: str


@dataclass(frozen=True)
class CascadeComparison(Comparison):
    """Base and cascade, and the scores of the cascade's parts and ways.

    Attributes:
        rows: scores by way; the cascade's own is among them, under the name of its mode.
        notes: per way, width of the features and on what it was fitted.
    """

    rows: dict[str, Scores] = field(default_factory=dict)
    notes: dict[str, WayNoteJson] = field(default_factory=dict)

    def to_json(self) -> CascadeComparisonJson:
        """As of any comparison, and a block "cascade"."""
        rows: dict[str, WayJson] = {name: {**self.notes[name], **scores.groups} for name, scores in self.rows.items()}
        return {**super().to_json(), "cascade": rows}


def compare_cascade(
    backbone: Backbone,
    cascade: Cascade,
    split: LabeledSplit,
    embedding: Embedding,
    protocol: ScoringProtocol,
    *,
    device: torch.device | None = None,
    progress: Callable[[int], None] | None = None,
) -> CascadeComparison:
    """Score base, cascade and the cascade's parts on the same split.

    Args:
        backbone: the base, on its device; left as the base.
        cascade: over it.
        split, embedding, protocol: images, how they become features, which scores.
        device: where neighbours are looked for; None for the CPU.
        progress: called with the number of images embedded so far, over all E + 2 networks.

    Raises:
        MismatchError, AdapterFileError: the cascade does not fit the base.
        DataError: an image cannot be read.
    """
    paths, num_train = [*split.train_paths, *split.test_paths], len(split.train_paths)

    def tick(num_networks: int) -> Callable[[int], None] | None:
        return None if progress is None else lambda done: progress(num_networks * len(paths) + done)

    def scores(features: Tensor) -> Scores:
        train, test = features[:num_train], features[num_train:]
        labels = torch.tensor(split.train_labels), torch.tensor(split.test_labels)
        return score(LabeledFeatures(train, labels[0], test, labels[1]), protocol, device=device)

    base = features_under(None, backbone, paths, embedding, progress=tick(0))
    dispatched = features_under(cascade.dispatcher, backbone, paths, embedding, progress=tick(1))
    blocks = expert_blocks(
        cascade.dispatcher, cascade.experts, dispatched, backbone, paths, embedding, progress=tick(2)
    )
    ways = ways_of(cascade, blocks, num_train)
    rows = {name: scores(way.features) for name, way in ways.items()}
    notes: dict[str, WayNoteJson] = {
        name: {"dim": way.features.shape[1], "fitted_on": way.fitted_on} for name, way in ways.items()
    }
    judged = compare(scores(base), rows[cascade.mode])
    return CascadeComparison(judged.base, judged.adapted, judged.gains, rows, notes)


def ways_of(cascade: Cascade, blocks: list[Tensor], num_train: int) -> dict[str, Way]:
    """Every way from a cascade's blocks to features.

    Args:
        cascade: its router and combination are used.
        blocks: E + 1 times (N, F), of all networks for all images, the dispatcher's first.
        num_train: the first of the images, on which is fitted what the cascade does not hold.

    Returns:
        By name. "dispatcher", alone; "dispatcher_whitened", to as many components as it has features, and "...@D", to
        the share D of them that whitening the cascade to that width keeps; "conditional" and "unconditional", combined
        as the cascade does, and both "..._whitened", as in the paper, if that is another way.
    """
    routes = cascade.router.route(blocks[0])
    num_features = blocks[0].shape[1]
    alone = whiten_alone(blocks[0][:num_train])
    share = max(1, len(alone.combine([blocks[0][:1]])[0]) // len(blocks))
    fewer = whiten_alone(blocks[0][:num_train], dim=share)
    ways = {
        "dispatcher": Way(blocks[0], NOTHING),
        "dispatcher_whitened": Way(alone.combine([blocks[0]]), FITTED),
        f"dispatcher_whitened@{share}": Way(fewer.combine([blocks[0]]), FITTED),
    }
    for mode in MODES:
        sent = routes if mode == "conditional" else None
        own, fitted_on = _own_way(cascade.combination, mode, blocks, sent, num_train)
        ways[mode] = Way(own.combine(blocks, sent), fitted_on)
        if own.kind != "pca":
            whitened = _fitted(blocks, sent, num_train, "pca", num_features, 0)
            ways[f"{mode}_whitened"] = Way(whitened.combine(blocks, sent), FITTED)
    return ways


def _own_way(
    stored: Combination, mode: str, blocks: list[Tensor], routes: Tensor | None, num_train: int
) -> tuple[Combination, str]:
    """The cascade's own combination in a mode; where the other is stored, one is fitted on the training images."""
    if stored.kind == "none":
        return replace(stored, mode=mode), NOTHING
    if stored.mode == mode:
        return stored, STORED
    return _fitted(blocks, routes, num_train, stored.kind, stored.dim, stored.seed), FITTED


def _fitted(blocks: list[Tensor], routes: Tensor | None, num_train: int, kind: str, dim: int, seed: int) -> Combination:
    train = [block[:num_train] for block in blocks]
    return fit_combination(train, None if routes is None else routes[:num_train], kind=kind, dim=dim, seed=seed)
