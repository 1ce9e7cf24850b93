"""Conditions a CI pipeline puts on an evaluation."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from smn_cli.errors import UsageError
from smn_cli.schemas.scores import GateJson


@dataclass(frozen=True)
class Gate:
    """A lower bound on a metric of the adapted network, or on its gain over the base."""

    metric: str
    bound: float
    on_gain: bool

    @property
    def name(self) -> str:
        """As it stands in reports: knn.top1>=0.7, or gain(knn.top1)>=0."""
        return f"{f'gain({self.metric})' if self.on_gain else self.metric}>={self.bound:g}"


@dataclass(frozen=True)
class GateResult:
    """What became of a gate; `value` is None if its metric was not computed."""

    gate: str
    value: float | None
    passed: bool

    def to_json(self) -> GateJson:
        """As in the contract's JSON."""
        return {"gate": self.gate, "value": self.value, "passed": self.passed}


def parse_gate(text: str, *, on_gain: bool) -> Gate:
    """Read METRIC=NUMBER.

    Raises:
        UsageError: it is not of that form.
    """
    option = "`min_gain`" if on_gain else "`fail_under`"
    metric, separator, number = text.partition("=")
    try:
        bound = float(number)
    except ValueError:
        bound = math.nan
    if not separator or not metric or not math.isfinite(bound):
        raise UsageError(f"{option} {text}: expected METRIC=NUMBER, such as knn.top1=0.70")
    return Gate(metric, bound, on_gain)


def check_gates(gates: list[Gate], metrics: Mapping[str, float], gains: Mapping[str, float]) -> list[GateResult]:
    """Hold gates against values by metric name; a metric that was not computed fails its gate."""
    results = []
    for gate in gates:
        value = (gains if gate.on_gain else metrics).get(gate.metric)
        results.append(GateResult(gate.name, value, value is not None and value >= gate.bound))
    return results
