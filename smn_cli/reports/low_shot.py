"""Accuracy against the number of labels: the picture, as a file or as a part of a page."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from smn_cli.atomic import write_atomically
from smn_cli.errors import printable
from smn_cli.evaluation.low_shot import LowShotRow, LowShotScores
from smn_cli.reports.figures import ADAPTED, BASE, page_svg, svg_text

STYLES = (
    (BASE, "--", "s"),
    (ADAPTED, "-", "o"),
    ("#b3541e", "-.", "^"),
    ("#1f3d7a", ":", "D"),
    ("#7a3e9d", (0, (5, 1)), "v"),
    ("#14171c", (0, (1, 1)), "P"),
)
"""Colour, line and marker of the base and of the adapters in turn: marker and line tell them apart in grey."""
_DOTS_PER_INCH = 160


def low_shot_figure(rows: Sequence[LowShotRow]) -> Figure:
    """A panel a metric: mean accuracy of every network over the number of labels, a band of one deviation around it."""
    rows = list({row.num_images: row for row in rows}.values())  # the least balanced draw is one image a class
    metrics = list(rows[0].base.correct)
    figure = Figure(figsize=(0.6 + 3.4 * len(metrics), 3.7), layout="constrained")
    panels = figure.subplots(1, len(metrics), sharey=True, squeeze=False)[0]
    with mpl.rc_context({"text.parse_math": False}):  # a dollar in a file's name begins no formula
        for axes, metric in zip(panels, metrics, strict=True):
            _draw(axes, metric, rows)
        panels[0].set_ylabel("top-1 accuracy")
        lines, names = panels[0].get_legend_handles_labels()
        figure.legend(lines, names, loc="outside upper left", ncols=3, frameon=False, fontsize=9)
    return figure


def write_plot(rows: Sequence[LowShotRow], path: Path) -> None:
    """Write the picture as PNG or SVG, by the ending of the name.

    Raises:
        OSError: the folder is missing or not writable.
    """
    figure = low_shot_figure(rows)
    if path.suffix.lower() == ".svg":
        write_atomically(
            path,
            (
                '<?xml version="1.0" encoding="utf-8"?>\n'
                + svg_text(figure, "Accuracy over the number of labeled images")
            ).encode(),
        )
        return
    buffer = BytesIO()
    _without_frame(figure)
    figure.savefig(buffer, format="png", dpi=_DOTS_PER_INCH, metadata={"Software": None})
    write_atomically(path, buffer.getvalue())


def low_shot_part(rows: Sequence[LowShotRow]) -> dict[str, Any]:
    """What `low_shot.html.j2` shows: the picture and its numbers."""
    alt = "Accuracy of every network over the number of labeled images; the table has its numbers"
    return {"rows": rows, "figure": Markup(page_svg(low_shot_figure(rows), alt)), "deviation": _deviation}


def _draw(axes: Axes, metric: str, rows: Sequence[LowShotRow]) -> None:
    networks: dict[str, list[LowShotScores]] = {"base": [row.base for row in rows]}
    networks |= {name: [row.adapted[name] for row in rows] for name in rows[0].adapted}
    labels = [row.num_images for row in rows]
    for number, (name, scores) in enumerate(networks.items()):
        colour, line, marker = STYLES[number if number < len(STYLES) else 1 + (number - 1) % (len(STYLES) - 1)]
        means = [each.metrics[metric] for each in scores]
        spreads = [each.spreads[metric] or 0.0 for each in scores]
        axes.plot(labels, means, color=colour, linestyle=line, marker=marker, markersize=5, linewidth=1.6)
        axes.lines[-1].set_label(_label(name))
        low = [mean - spread for mean, spread in zip(means, spreads, strict=True)]
        high = [mean + spread for mean, spread in zip(means, spreads, strict=True)]
        axes.fill_between(labels, low, high, color=colour, alpha=0.15, linewidth=0)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(labels))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticklabels([f"{row.num_images:,}\n{100 * row.fraction:g} %" for row in rows])
    axes.set_xlabel("labeled images")
    axes.set_title(metric, fontsize=10)
    axes.grid(axis="y", color="#e4e7eb", linewidth=0.8)
    axes.tick_params(labelsize=8)


def _label(name: str) -> str:
    """A network's name as a legend shows it; Matplotlib leaves out those that begin with an underscore."""
    text = printable(name)
    return f" {text}" if text.startswith("_") else text


def _without_frame(figure: Figure) -> None:
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)


def _deviation(scores: LowShotScores, metric: str) -> str:
    spread = scores.spreads[metric]
    return "" if spread is None else f"{spread:.4f}"
