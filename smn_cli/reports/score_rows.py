"""Scores as rows of words, for tables on the terminal, in Markdown and in pages alike; needs no torch."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from smn_cli.evaluation.compare import Comparison
    from smn_cli.evaluation.controls import ControlledComparison

GAIN_COLUMNS = ("adapted", "gain", "95 % interval", "")
VERDICT_WORDS = {
    "better": "better than its base",
    "same": "not distinguishable from its base",
    "worse": "worse than its base: do not ship it",
}
_READOUT_WORDS = {"centred": "centred", "whitened": "partly whitened", "stages": "of its own stages"}


def score_columns(first: str, comparison: "Comparison") -> list[str]:
    """Titles of the columns of both kinds of rows; a base alone has no gains."""
    return [first, "base", *GAIN_COLUMNS[: 4 * (comparison.adapted is not None)]]


def score_rows(comparison: "Comparison") -> list[list[str]]:
    """Every metric for base and adapted, the gain with its interval and verdict."""
    base, adapted = comparison.base.metrics, comparison.adapted.metrics if comparison.adapted else {}
    rows = [[metric, *_cells(value, metric, comparison)] for metric, value in base.items()]
    return rows + [[metric, "-", f"{value:.4f}", "", "", ""] for metric, value in adapted.items() if metric not in base]


def control_rows(comparison: "Comparison") -> list[list[str]]:
    """The same of what needs no training; empty without controls."""
    controlled = _controlled(comparison)
    if controlled is None:
        return []
    with_gains = comparison.adapted is not None  # of the stages there is none; its row is as long as the others
    rows = []
    for kind, each in controlled.readouts.items():
        for metric, value in each.base.metrics.items():
            cells = _cells(value, metric, each)
            rows.append([f"{metric} {_READOUT_WORDS[kind]}", *cells, *[""] * (1 + 4 * with_gains - len(cells))])
    native = controlled.native
    if native is not None:
        for metric, value in native.comparison.base.metrics.items():
            rows.append([f"{metric} base at {native.size} px", *_cells(value, metric, native.comparison)])
    return rows


def native_notes(comparison: "Comparison") -> list[str]:
    """What the base's own size costs, and a word where the untouched base is better there."""
    controlled = _controlled(comparison)
    native = None if controlled is None else controlled.native
    if native is None:
        return []
    cost = ", ".join(f"{milliseconds:.1f} ms at {size} px" for size, milliseconds in native.milliseconds.items())
    notes = [f"an image takes {cost}, on this machine"]
    if native.is_better:
        notes.append(
            f"the untouched base at {native.size} px is better than the adapted network at its own size: where "
            "that time can be spent, use the base at that size, or adapt it there"
        )
    return notes


def _controlled(comparison: "Comparison") -> "ControlledComparison | None":
    from smn_cli.evaluation.controls import ControlledComparison

    return comparison if isinstance(comparison, ControlledComparison) else None


def _cells(base: float, metric: str, comparison: "Comparison") -> list[str]:
    if comparison.adapted is None or metric not in comparison.gains:
        return [f"{base:.4f}"] + ["-", "", "", ""] * (comparison.adapted is not None)
    gain = comparison.gains[metric]
    interval = f"{gain.low:+.4f} .. {gain.high:+.4f}"
    adapted = f"{comparison.adapted.metrics[metric]:.4f}"
    return [f"{base:.4f}", adapted, f"{gain.value:+.4f}", interval, gain.verdict]
