"""The report's pictures, as SVG and JPEG text that can stand in a page."""

import base64
import io
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import matplotlib as mpl
import numpy as np
from markupsafe import escape
from matplotlib.figure import Figure
from PIL import Image

from smn_cli.data.images.decode import read_image
from smn_cli.data.preprocessing import Preprocessing

BASE, ADAPTED, FAINT = "#8a8f98", "#0b6e4f", "#d0d4da"
THUMBNAIL = 72
CURVE_INCHES = (3.3, 2.1)
PAGE_COLOURS = {
    BASE: "var(--base)",
    ADAPTED: "var(--adapted)",
    FAINT: "var(--line)",
    "#e4e7eb": "var(--line)",
    "#b3541e": "var(--warn)",
    "#1f3d7a": "var(--blue)",
    "#7a3e9d": "var(--violet)",
    "#14171c": "currentColor",
    "#000000": "currentColor",
}
"""What stands for a figure's colours in a page, by the colour."""


def loss_figure(steps: Sequence[int], losses: Sequence[float], log_k: float) -> str:
    """Loss over the steps, with ln K as the line of knowing nothing where the loss comes near it."""
    figure = Figure(figsize=CURVE_INCHES, layout="constrained")
    axes = figure.subplots()
    axes.plot(steps, losses, color=FAINT, linewidth=1)
    axes.plot(steps, _smoothed(losses), color=ADAPTED, linewidth=1.8)
    axes.axhline(log_k, color=BASE, linestyle="--", linewidth=1)
    axes.set_ylim(0, 1.1 * max(log_k, *filter(math.isfinite, losses)))
    axes.set_xlabel("step", fontsize=8)
    axes.tick_params(labelsize=8)
    words = f"Loss over the steps, {losses[0]:.3f} to {losses[-1]:.3f}; dashed: ln K = {log_k:.3f}"
    return page_svg(figure, words)


def curve_figure(
    steps: Sequence[int], values: Sequence[float], base: float | None, ends: tuple[float, float], name: str
) -> str:
    """One number of the panel over the evaluations, against the base if that is known, on an axis between `ends`."""
    figure = Figure(figsize=CURVE_INCHES, layout="constrained")
    axes = figure.subplots()
    before = [] if base is None else [base]
    axes.plot([0, *steps][-len([*before, *values]) :], [*before, *values], color=ADAPTED, marker="o", markersize=3)
    if base is not None:
        axes.axhline(base, color=BASE, linestyle="--", linewidth=1)
    axes.set_ylim(*ends)
    axes.set_xlabel("step", fontsize=8)
    axes.tick_params(labelsize=8)
    beside = "" if base is None else f"; dashed: the base, {base:.4g}"
    return page_svg(figure, f"{name} over the steps, {[*before, *values][0]:.4g} to {values[-1]:.4g}{beside}")


def density_figure(names: Sequence[str], densities: Sequence[float]) -> str:
    """Share of cut weights a tensor, in the order of the network."""
    figure = Figure(figsize=(6.2, max(1.6, 0.15 * len(names))), layout="constrained")
    axes = figure.subplots()
    positions = np.arange(len(names))
    axes.barh(positions, [100 * (1 - density) for density in densities], color=ADAPTED)
    axes.set_yticks(positions, names, fontsize=6)
    axes.invert_yaxis()
    axes.set_xlabel("% of weights cut")
    return page_svg(figure, "Share of cut weights by tensor")


def thumbnail(path: Path, preprocessing: Preprocessing, side: int = THUMBNAIL) -> str:
    """Data address of an image as the network sees it, `side` pixels wide and high."""
    return _address(_small(path, preprocessing, side))


def contact_sheet(paths: Sequence[Path], preprocessing: Preprocessing, side: int) -> tuple[str, int]:
    """Data address of one picture of all images, row by row in their order, and how many stand in a row."""
    num_columns = math.ceil(math.sqrt(len(paths)))
    sheet = Image.new("RGB", (num_columns * side, math.ceil(len(paths) / num_columns) * side))
    for position, path in enumerate(paths):
        row, column = divmod(position, num_columns)
        sheet.paste(_small(path, preprocessing, side), (column * side, row * side))
    return _address(sheet), num_columns


def _small(path: Path, preprocessing: Preprocessing, side: int) -> Image.Image:
    # what the network sees, but no coarser than it is shown
    seen = replace(preprocessing, size=max(preprocessing.size, side))
    return seen.crop(read_image(path)).resize((side, side), Image.Resampling.BILINEAR)


def _address(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=75)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _smoothed(values: Sequence[float], weight: float = 0.9) -> list[float]:
    smoothed: list[float] = []
    for value in values:
        smoothed.append(value if not smoothed else weight * smoothed[-1] + (1 - weight) * value)
    return smoothed


def page_svg(figure: Figure, alt: str) -> str:
    """The same for a page, whose colours it takes, also dark ones, and whose font."""
    text = svg_text(figure, alt, transparent=True)
    for colour, name in PAGE_COLOURS.items():
        text = text.replace(colour, name)
    end = "</metadata>"
    text = text[: text.index("<metadata")] + text[text.index(end) + len(end) :]
    # many figures stand in one page, where a name may be there once; what is referred to is named by its content
    return re.sub(r' id="[a-zA-Z0-9.]+_\d+"', "", text)


def svg_text(figure: Figure, alt: str, *, transparent: bool = False) -> str:
    """A figure as an SVG element; `alt` says in words what it shows."""
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    buffer = io.StringIO()
    # a fixed salt and no date: the same run gives the same page
    with mpl.rc_context({"svg.hashsalt": "smn", "svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", transparent=transparent, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    named = f'<svg class="picture" role="img" aria-label="{escape(alt)}"'
    return named + text[text.index("<svg") + len("<svg") :]
