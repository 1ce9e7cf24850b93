"""What became of a run, in words with their number, unit and interval."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from smn_cli.evaluation.intervals import Gain
from smn_cli.reports.score_rows import VERDICT_WORDS
from smn_cli.runs.run_result import Learned


@dataclass(frozen=True)
class RunVerdict:
    """What a run keeps, and why.

    Attributes:
        kind: "better", "same" or "worse" than the base beyond doubt; "identity" if the base is kept; "" if not judged.
        headline: in a few words.
        reason: whole sentences, with the judge's number.
    """

    kind: str
    headline: str
    reason: str


@dataclass(frozen=True)
class JudgeUnit:
    """What a judge counts.

    Attributes:
        measure: right answers, neighbour likeness, or neighbours that two views share.
        base: the measure of the base, -1 to 1; of right answers not told.
        num_images: held out.
    """

    measure: Literal["labels", "likeness", "views"]
    base: float
    num_images: int


def run_verdict(
    learned: Learned, evaluations: Sequence[dict[str, Any]], unit: JudgeUnit, *, keep: str, taken: int
) -> RunVerdict:
    """What is kept and what its judge says of it.

    Args:
        learned: of the run.
        evaluations: the judgements that metrics.jsonl has.
        unit: that they are in.
        keep: "best" or "last", as the plan has it.
        taken: steps.
    """
    told = {record["step"]: _gain(record) for record in evaluations}
    if keep == "best" and learned.step == 0:
        if not taken:
            why = "because of the alarm" if learned.num_steps else "as asked"
            reason = f"Nothing was trained, {why}, so the identity mask is what gets packed."
            return RunVerdict("identity", "The base is kept.", reason)
        reason = "No state of this run was above the untouched network beyond doubt"
        if told:
            step = max(told, key=lambda step: told[step].value)
            reason += f"; the best of them, step {step}, was {_words(unit, told[step])}"
        return RunVerdict("identity", "The base is kept.", f"{reason}. So the identity mask is what gets packed.")
    gain = told.get(learned.step)
    words = "" if gain is None else f"{_sentence(unit, gain)}"
    if keep == "best":
        return RunVerdict(
            "better", f"Better than its base, says its judge: step {learned.step} of {taken} is kept.", words
        )
    judged = "" if gain is None else f" To its judge it is {VERDICT_WORDS[gain.verdict]}."
    headline = f"The last state, step {learned.step}, is kept, as asked for, whatever the judge says."
    return RunVerdict("" if gain is None else gain.verdict, headline, f"{words}{judged}".strip())


def _gain(record: dict[str, Any]) -> Gain:
    gain = record["evaluation"]["gain"]
    return Gain(float(gain["value"]), float(gain["low"]), float(gain["high"]))


def _sentence(unit: JudgeUnit, gain: Gain) -> str:
    if unit.measure == "labels":
        return f"Accuracy on the labeled images that judge went from the base's by {_words(unit, gain)}."
    measure = "Neighbour likeness, a cosine between -1 and 1 (higher is better),"
    if unit.measure == "views":
        measure = "The share of neighbours that two views of an image have in common (higher is better)"
    return (
        f"{measure} went from {unit.base:.4f} to {unit.base + gain.value:.4f} on "
        f"{unit.num_images} images held out: {_words(unit, gain)}."
    )


def _words(unit: JudgeUnit, gain: Gain) -> str:
    if unit.measure == "labels":
        return (
            f"{100 * gain.value:+.1f} percentage points (95 % interval {100 * gain.low:+.1f} .. {100 * gain.high:+.1f})"
        )
    return f"{gain.value:+.4f} (95 % interval {gain.low:+.4f} .. {gain.high:+.4f})"
