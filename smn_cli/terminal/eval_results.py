"""From the scores of `smn eval` to its gates and its JSON."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from smn_cli.evaluation.gates import check_gates
from smn_cli.evaluation.metric_names import DEFAULT_KS, MetricNames, at_fraction, metric_names

if TYPE_CHECKING:
    from smn_cli.config.eval_options import EvalOptions
    from smn_cli.evaluation.compare import Comparison
    from smn_cli.evaluation.details import MetricDetails
    from smn_cli.evaluation.gates import Gate, GateResult
    from smn_cli.evaluation.low_shot import LowShotRow
    from smn_cli.schemas.scores import AdapterScoresJson, ComparisonJson, EvalScoresJson
    from smn_cli.terminal.networks import Networks


def known_early(gates: "Sequence[Gate]") -> "list[Gate]":
    """Gates on metrics whose names do not depend on the images: a k is cut to the training images there are."""
    return [gate for gate in gates if "top1@" not in gate.metric.partition("@label:")[0]]


def names_asked_for(options: "EvalOptions", fractions: Sequence[float], *, is_adapted: bool) -> MetricNames:
    """Metrics that the options allow, with those that a network may turn out not to have."""
    return metric_names(
        **_asked(options, fractions, None),
        is_adapted=is_adapted,
        has_classifier=True,
        has_controls=options.controls,
        has_stages=True,
    )


def names_of(networks: "Networks", options: "EvalOptions", fractions: Sequence[float], num_train: int) -> MetricNames:
    """Metrics that an evaluation of these networks gives; gates are about the first.

    Raises:
        BackboneError: the base cannot take images of that size.
    """
    from smn_cli.backbones.loading import check_sizes
    from smn_cli.backbones.stages import has_stages

    backbone, size = networks.backbone, networks.preprocessing.size
    check_sizes(backbone, [size])
    first = next(iter(networks.changes.values()), None)
    return metric_names(
        **_asked(options, fractions, num_train),
        is_adapted=first is not None or networks.cascade is not None,
        has_classifier=first is not None and first.head is not None,
        has_controls=options.controls and networks.cascade is None,
        has_stages=has_stages(backbone.model, size),
    )


def hold_gates(gates: "list[Gate]", judged: "Comparison", rows: "Sequence[LowShotRow]") -> "list[GateResult]":
    """Hold the gates against the first adapted network, or against a base alone."""
    from smn_cli.evaluation.controls import ControlledComparison

    metrics = dict((judged.adapted or judged.base).metrics)
    gains = {name: gain.value for name, gain in judged.gains.items()}
    if isinstance(judged, ControlledComparison):
        metrics |= judged.metrics
        gains |= judged.control_gains
    for row in rows:
        few = next(iter(row.adapted.values()), row.base)
        metrics |= {at_fraction(name, row.fraction): value for name, value in few.metrics.items()}
        few_gains = next(iter(row.gains.values()), {})
        gains |= {at_fraction(name, row.fraction): gain.value for name, gain in few_gains.items()}
    return check_gates(gates, metrics, gains)


def scores_json(
    comparisons: "Mapping[str, Comparison]",
    details: "Mapping[str, Mapping[str, MetricDetails]]",
    rows: "Sequence[LowShotRow]",
) -> "EvalScoresJson":
    """All scores: those of the first network and, if there are several, of each."""
    first = next(iter(comparisons))
    content = cast("EvalScoresJson", {**comparisons[first].to_json(), "details": _details(details[first])})
    if len(comparisons) > 1:
        content["adapters"] = [
            cast(
                "AdapterScoresJson",
                {
                    "name": name,
                    **comparison.adapted.groups,
                    **_beyond_base(comparison.to_json()),
                    "details": _details(details[name]),
                },
            )
            for name, comparison in comparisons.items()
            if comparison.adapted is not None
        ]
    if rows:
        content["low_shot"] = [row.to_json() for row in rows]
    return content


def _asked(options: "EvalOptions", fractions: Sequence[float], num_train: int | None) -> dict[str, Any]:
    return {
        "knn": options.is_knn,
        "linear": options.linear,
        "ks": options.k or DEFAULT_KS,
        "num_train": num_train,
        "fractions": fractions,
    }


def _details(details: "Mapping[str, MetricDetails]") -> Any:
    return {metric: each.to_json() for metric, each in details.items()}


def _beyond_base(told: "ComparisonJson") -> Any:
    """What a comparison says beside the scores of its two networks."""
    return {name: value for name, value in told.items() if name not in ("base", "adapted")}
