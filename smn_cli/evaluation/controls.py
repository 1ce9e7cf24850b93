"""What a gain has to stand beside: readings of the same features that need no training, and the base at its own size.

An adapted network is worth its trouble only where it beats what costs nothing: features centred or partly whitened (see
`readouts`), the base's own stages (see `smn_cli.backbones.stages`), and the base on images of the size it was made for.
"""

from dataclasses import dataclass, field, replace
from typing import cast

import torch

from smn_cli.evaluation.compare import Comparison, LabeledFeatures, Scores, ScoringProtocol, compare, score
from smn_cli.evaluation.metric_names import NATIVE, READOUTS, STAGES
from smn_cli.evaluation.readouts import Readout, fit_readout, fit_stage_readout
from smn_cli.schemas.scores import ControlledComparisonJson, NativeJson, ReadoutJson


@dataclass(frozen=True)
class NativeBase:
    """The untouched base on images of its own size, beside the adapted network on images of the adapter's.

    Attributes:
        size: of the base's images here, in pixels.
        comparison: base at that size, adapted network at the adapter's.
        milliseconds: an image, forward pass alone, by size.
    """

    size: int
    comparison: Comparison
    milliseconds: dict[int, float]

    def beside(self, adapted: Scores | None) -> "NativeBase":
        """The same base beside another adapted network."""
        return replace(self, comparison=compare(self.comparison.base, adapted))

    @property
    def is_better(self) -> bool:
        """Whether the adapted network is below the untouched base at that size, beyond the interval."""
        return self.comparison.verdict == "worse"

    def to_json(self) -> NativeJson:
        """As in the contract's JSON."""
        content: NativeJson = {
            "size": self.size,
            "base": self.comparison.base.groups,
            "milliseconds_an_image": {str(size): round(cost, 3) for size, cost in self.milliseconds.items()},
        }
        if self.comparison.adapted is not None:
            content["gain"] = {name: gain.to_json() for name, gain in self.comparison.gains.items()}
        return content


@dataclass(frozen=True)
class ControlledComparison(Comparison):
    """Base and adapted network, and what stands beside them.

    Attributes:
        readouts: k-NN scores by readout of the features; that of the stages is of the base alone.
        native: None where the images already have the base's own size.
    """

    readouts: dict[str, Comparison] = field(default_factory=dict)
    native: NativeBase | None = None

    @property
    def metrics(self) -> dict[str, float]:
        """Accuracies of the controls: `whitened.knn.top1` of the adapted network, `native.knn.top1` of the base."""
        rows = {kind: (each.adapted or each.base).metrics for kind, each in self.readouts.items()}
        rows[NATIVE] = (self if self.native is None else self.native.comparison).base.metrics
        return {f"{kind}.{name}": value for kind, row in rows.items() for name, value in row.items()}

    @property
    def control_gains(self) -> dict[str, float]:
        """Gains over the base with the same reading; under "native" over the base at its own size."""
        rows = {kind: each.gains for kind, each in self.readouts.items()}
        rows[NATIVE] = (self if self.native is None else self.native.comparison).gains
        return {f"{kind}.{name}": gain.value for kind, row in rows.items() for name, gain in row.items()}

    def to_json(self) -> ControlledComparisonJson:
        """As of any comparison, with the controls."""
        readouts: dict[str, ReadoutJson] = {}
        for kind, each in self.readouts.items():
            readouts[kind] = {"base": each.base.groups["knn"]}
            if each.adapted is not None:
                readouts[kind]["adapted"] = each.adapted.groups["knn"]
                readouts[kind]["gain"] = {name: gain.to_json() for name, gain in each.gains.items()}
        content = cast("ControlledComparisonJson", {**super().to_json(), "readouts": readouts})
        if self.native is not None:
            content["native"] = self.native.to_json()
        return content


def readout_scores(
    features: LabeledFeatures, protocol: ScoringProtocol, *, device: torch.device | None = None
) -> dict[str, Scores]:
    """k-NN scores of one network by readout, each fitted to the training images without labels; also of its stages.

    Args:
        features: of the network, with its stages if they are to be scored.
        protocol: its neighbours; a protocol without k-NN gives nothing.
        device: where neighbours are looked for.
    """
    if not protocol.knn:
        return {}
    neighbours = replace(protocol, linear=False)
    spaces: dict[str, LabeledFeatures] = {kind: _read(features, fit_readout(features.train, kind)) for kind in READOUTS}
    if features.stages is not None:
        spaces[STAGES] = _read(features.stages, fit_stage_readout(features.stages.train))
    return {kind: score(space, neighbours, device=device) for kind, space in spaces.items()}


def controlled(
    comparison: Comparison,
    base_readouts: dict[str, Scores],
    adapted_readouts: dict[str, Scores],
    native: NativeBase | None,
) -> ControlledComparison:
    """Put what `readout_scores` found for base and adapted network beside their comparison."""
    readouts = {kind: compare(scores, adapted_readouts.get(kind)) for kind, scores in base_readouts.items()}
    return ControlledComparison(comparison.base, comparison.adapted, comparison.gains, readouts, native)


def _read(features: LabeledFeatures, readout: Readout) -> LabeledFeatures:
    return replace(features, train=readout(features.train), test=readout(features.test), stages=None)
