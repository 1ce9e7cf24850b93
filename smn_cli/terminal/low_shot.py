"""Options and table of scores with few labels."""

from typing import TYPE_CHECKING

from smn_cli.errors import ClashError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from smn_cli.config.eval_options import EvalOptions
    from smn_cli.console import Output
    from smn_cli.evaluation.low_shot import LowShotRow


def parse_fractions(text: str) -> list[float]:
    """Read numbers separated by commas, each above 0 and at most 1, none twice.

    Raises:
        UsageError: it is not of that form.
    """
    try:
        fractions = [float(part) for part in text.split(",")]
    except ValueError:
        fractions = []
    if not fractions or not all(0 < fraction <= 1 for fraction in fractions):
        raise UsageError(f"--label-fraction {text}: expected numbers above 0 and at most 1, such as 1,0.1,0.01")
    if len(set(fractions)) < len(fractions):
        raise UsageError(f"--label-fraction {text} has a number twice: give each once")
    return fractions


def check_low_shot_options(options: "EvalOptions") -> None:
    """Refuse options that have nothing to work on, before the work is done.

    Raises:
        ClashError: it is so.
    """
    asked = ["--unbalanced"] * options.unbalanced + [f"--plot {options.plot}"] * (options.plot is not None)
    if options.label_fraction is None and asked:
        words = f"{asked[0]} is about few labels: add --label-fraction, such as 1,0.1,0.01"
        raise ClashError(words, "unbalanced" if options.unbalanced else "plot", ["label_fraction"])


def report_low_shot(output: "Output", rows: "Sequence[LowShotRow]") -> None:
    """Print every metric of every network at every fraction, and its gain over the base."""
    lines = []
    for row in rows:
        labels = f"{row.fraction:g} ({row.num_images})"
        for metric, value in row.base.metrics.items():
            lines.append([labels, metric, "base", spread_text(value, row.base.spreads[metric]), "", "", ""])
            for name, scores in row.adapted.items():
                gain = row.gains[name][metric]
                shown = spread_text(scores.metrics[metric], scores.spreads[metric])
                interval = f"{gain.low:+.4f} .. {gain.high:+.4f}"
                lines.append([labels, metric, name, shown, f"{gain.value:+.4f}", interval, gain.verdict])
    columns = ("labels", "metric", "network", "mean ± spread", "gain", "95 % interval", "")
    output.table(f"few labels, {max(row.num_repeats for row in rows)} draws of them", columns, lines)
    for row in rows:
        if row.num_missing:
            output.result(f"with {row.fraction:g} of the labels up to {row.num_missing} classes have no image")


def spread_text(value: float, spread: float | None) -> str:
    """A mean and, if there are several, the standard deviation of what it is the mean of."""
    return f"{value:.4f}" if spread is None else f"{value:.4f} ± {spread:.4f}"
