"""All that an evaluation found, for the summary, the JUnit file and the page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from smn_cli.data.preprocessing import Preprocessing
from smn_cli.evaluation.compare import Comparison
from smn_cli.evaluation.details import ClassAccuracy, MetricDetails
from smn_cli.evaluation.gates import GateResult
from smn_cli.evaluation.low_shot import LowShotRow
from smn_cli.reports.score_rows import VERDICT_WORDS


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found.

    Attributes:
        arch: timm architecture.
        facts: by name, what else a reader has to know, in words.
        comparisons: with the base, by name of the adapted network; a base alone has one under any name.
        details: by the same names, then by metric.
        gates: what became of them.
        rows: scores with few labels.
        preprocessing: of the images.
        test_paths: of the test images, which details count.
        seconds: that it took.
    """

    arch: str
    facts: Mapping[str, str]
    comparisons: Mapping[str, Comparison]
    details: Mapping[str, Mapping[str, MetricDetails]]
    gates: Sequence[GateResult]
    rows: Sequence[LowShotRow]
    preprocessing: Preprocessing
    test_paths: Sequence[Path]
    seconds: float

    @property
    def failed(self) -> list[GateResult]:
        """Gates that did not hold."""
        return [gate for gate in self.gates if not gate.passed]

    @property
    def headline(self) -> str:
        """The verdict on the first adapted network, and how many gates held."""
        verdict = next(iter(self.comparisons.values())).verdict
        parts = [] if verdict is None else [f"{self.subject(next(iter(self.comparisons)))} is {VERDICT_WORDS[verdict]}"]
        if self.gates:
            num_passed = len(self.gates) - len(self.failed)
            parts.append(f"{num_passed} of {len(self.gates)} gates passed")
        return "; ".join(parts) or "scores of a base alone"

    def subject(self, name: str) -> str:
        """An adapted network in a sentence, by its name where there are several."""
        return f"adapter {name}" if len(self.comparisons) > 1 else "the adapted network"


def most_changed(details: MetricDetails, most: int) -> list[ClassAccuracy]:
    """Classes whose accuracy changed most, the worst of equals first; of a base alone those that it knows least."""
    changed = [each for each in details.classes if each.gain is not None and each.gain.value]
    changed.sort(key=lambda each: (-abs(each.gain.value), each.gain.value) if each.gain else (0.0, 0.0))
    return changed[:most]
