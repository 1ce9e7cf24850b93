"""Conditions a CI pipeline puts on an evaluation."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from smn_cli.errors import UsageError
from smn_cli.evaluation.metric_names import MetricNames
from smn_cli.schemas.scores import GateJson

_ASKED_BY = {"knn.top1": "`knn`", "linear.top1": "`linear`"}
"""Parameters of metrics that are plainly known."""


@dataclass(frozen=True)
class Gate:
    """A lower bound on a metric of the adapted network, or on its gain over the base."""

    metric: str
    bound: float
    on_gain: bool

    @property
    def name(self) -> str:
        """As it stands in reports: knn.top1>=0.7, or gain(knn.top1)>=0."""
        return f"{self.quantity}>={self.bound:g}"

    @property
    def quantity(self) -> str:
        """What is bounded: knn.top1, or gain(knn.top1)."""
        return f"gain({self.metric})" if self.on_gain else self.metric

    @property
    def option(self) -> str:
        """The parameter that it is given by."""
        return "`min_gain`" if self.on_gain else "`fail_under`"


@dataclass(frozen=True)
class GateResult:
    """What became of a gate; `value` is None if its metric was not computed."""

    gate: Gate
    value: float | None
    passed: bool

    @property
    def name(self) -> str:
        """The gate's."""
        return self.gate.name

    @property
    def found(self) -> str:
        """What was found, after the name of the metric."""
        return "was not computed" if self.value is None else f"is {self.value:.4f}"

    @property
    def told(self) -> str:
        """Found and expected, in one sentence."""
        return f"{self.gate.quantity} {self.found}, expected {self.gate.bound:g} or more"

    def to_json(self) -> GateJson:
        """As in the contract's JSON."""
        return {"gate": self.name, "value": self.value, "passed": self.passed}


def parse_gate(text: str, *, on_gain: bool) -> Gate:
    """Read METRIC=NUMBER.

    Raises:
        UsageError: it is not of that form.
    """
    metric, separator, number = text.partition("=")
    try:
        bound = float(number)
    except ValueError:
        bound = math.nan
    gate = Gate(metric, bound, on_gain)
    if not separator or not metric or not math.isfinite(bound):
        raise UsageError(f"{gate.option} {text}: expected METRIC=NUMBER, such as knn.top1=0.70")
    return gate


def check_metrics(gates: Sequence[Gate], names: MetricNames) -> None:
    """Refuse gates on what an evaluation will not give: it would look as if the network had become worse.

    Raises:
        UsageError: of the first such gate, with what comes nearest and all that can be asked for.
    """
    for gate in gates:
        known = names.gains if gate.on_gain else names.values
        if gate.metric in known:
            continue
        what = "has no gain" if gate.metric in names.values else "is not among the metrics"
        raise UsageError(
            f"{gate.option} {gate.metric}={gate.bound:g}: {gate.metric} {what} here; {_advice(gate, known, names)}"
        )


def _advice(gate: Gate, known: Sequence[str], names: MetricNames) -> str:
    if not known:
        return "a base alone has no gains, so leave it out"
    allowed = f"expected one of {', '.join(known)}"
    if gate.metric in names.values:
        return allowed
    if gate.metric in _ASKED_BY:
        return f"{_ASKED_BY[gate.metric]} asks for it; {allowed}"
    near = get_close_matches(gate.metric, known, n=1)
    return f"did you mean {near[0]}? {allowed}" if near else allowed


def check_gates(gates: list[Gate], metrics: Mapping[str, float], gains: Mapping[str, float]) -> list[GateResult]:
    """Hold gates against values by metric name; a metric that was not computed fails its gate."""
    results = []
    for gate in gates:
        value = (gains if gate.on_gain else metrics).get(gate.metric)
        results.append(GateResult(gate, value, value is not None and value >= gate.bound))
    return results
