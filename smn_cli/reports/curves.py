"""A run's curves, each with words that say which way is good, over axes on which a small change looks small."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from smn_cli.reports.figures import curve_figure, loss_figure

RANK = "effective_rank"


@dataclass(frozen=True)
class Curve:
    """A picture and what it says: its name, which way is good, the number at start and end."""

    name: str
    meaning: str
    change: str
    picture: Markup


@dataclass(frozen=True)
class Reading:
    """How a number is to be read.

    Attributes:
        meaning: what it is, and which way is good.
        least, most: the values that it can have; None for no bound.
        span: that an axis covers at least.
    """

    meaning: str
    least: float | None
    most: float | None
    span: float


READINGS: Mapping[str, Reading] = {
    "neighbour_likeness": Reading(
        "Up is good. How alike the frozen teacher finds an image and those called its nearest: a cosine.",
        -1,
        1,
        0.2,
    ),
    "teacher_nearness": Reading("Up is good. Cosine to the teacher's features of the same image.", -1, 1, 0.2),
    RANK: Reading(
        "Level is good: directions that the features use. Below a quarter of the base's is collapse.",
        0,
        None,
        1,
    ),
    "view_agreement": Reading(
        "High is good: share of images whose mirrored crop is nearest to the image itself.",
        0,
        1,
        0.4,
    ),
    "drift": Reading(
        "Neither way is good in itself: how far the features moved from the base's, 1 - cosine.",
        0,
        2,
        0.4,
    ),
    "view_consistency": Reading(
        "Up is good, a fall speaks against the network: share of neighbours that two views of an image both find.",
        0,
        1,
        0.4,
    ),
    "witness_agreement": Reading(
        "Up is good, a fall speaks against the network: share of neighbours that the independent model has, too.",
        0,
        1,
        0.4,
    ),
}
_ACCURACY = Reading("Up is good: share of labeled images that are right.", 0, 1, 0.2)


def loss_curve(steps: Sequence[dict[str, Any]]) -> Curve | None:
    """Loss over the steps; None before the first."""
    if not steps:
        return None
    losses, log_k = [record["loss"] for record in steps], steps[0]["log_k"]
    picture = loss_figure([record["step"] for record in steps], losses, log_k)
    meaning = "Down is good. Dashed: ln K, the loss of knowing nothing. It says how training went, not what is kept."
    return Curve("Loss", meaning, f"{losses[0]:.3f} to {losses[-1]:.3f}", Markup(picture))


def health_curves(base_health: Mapping[str, float], evaluations: Sequence[dict[str, Any]]) -> list[Curve]:
    """Every number of the panel over the judgements, beside the base; empty without judgements.

    Args:
        base_health: of the base, by name.
        evaluations: records of metrics.jsonl with the same keys.
    """
    if not evaluations:
        return []
    first = evaluations[0]["evaluation"]
    bases: dict[str, float | None] = {name: base for name, base in base_health.items() if name in first}
    bases |= {name.removeprefix("base "): base for name, base in first.items() if name.startswith("base ")}
    if "witness_agreement" in first:
        bases.setdefault("witness_agreement", None)  # is not told of the base
    return [_curve(name, base, evaluations) for name, base in bases.items()]


def axis_range(values: Sequence[float], reading: Reading) -> tuple[float, float]:
    """Ends of an axis that holds all values: at least `span` wide, of a rank from 0, never beyond what can be."""
    low, high = min(values), max(values)
    if reading.most is None:
        return 0.0, max(reading.span, 1.15 * high)
    span = max(reading.span, 1.2 * (high - low))
    low, high = (low + high - span) / 2, (low + high + span) / 2
    if reading.least is not None and low < reading.least:
        low, high = reading.least, reading.least + span
    if high > reading.most:
        low, high = max(reading.most - span, reading.least if reading.least is not None else low), reading.most
    return low, high


def _curve(name: str, base: float | None, evaluations: Sequence[dict[str, Any]]) -> Curve:
    taken = [record["step"] for record in evaluations]
    values = [float(record["evaluation"][name]) for record in evaluations]
    reading = READINGS.get(name, _ACCURACY)
    title = name.replace("_", " ")
    before = [] if base is None else [base]
    picture = curve_figure(taken, values, base, axis_range([*before, *values], reading), title)
    digits = 1 if name == RANK else 3
    ends = (round(value, digits) + 0.0 for value in ([*before, *values][0], values[-1]))  # no -0.000
    change = " to ".join(f"{value:.{digits}f}" for value in ends)
    return Curve(title[:1].upper() + title[1:], reading.meaning, change, Markup(picture))
