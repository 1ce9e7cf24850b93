"""The report's pictures, as SVG and JPEG text that can stand in a page."""

import base64
import io
from collections.abc import Sequence
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


def loss_figure(steps: Sequence[int], losses: Sequence[float], log_k: float) -> str:
    """Loss over the steps, with ln K as the line of knowing nothing."""
    figure = Figure(figsize=(6.2, 2.6), layout="constrained")
    axes = figure.subplots()
    axes.plot(steps, losses, color=FAINT, linewidth=1)
    axes.plot(steps, _smoothed(losses), color=ADAPTED, linewidth=1.8, label="loss, smoothed")
    axes.axhline(log_k, color=BASE, linestyle="--", linewidth=1, label="ln K: knows nothing")
    axes.set_xlabel("step")
    axes.legend(frameon=False, fontsize=8)
    return svg_text(figure, "Loss over the steps, beside ln K")


def health_figure(steps: Sequence[int], values: Sequence[float], base: float, name: str) -> str:
    """One number of the panel over the evaluations, against the base."""
    figure = Figure(figsize=(3.0, 2.0), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, *steps], [base, *values], color=ADAPTED, marker="o", markersize=3)
    axes.axhline(base, color=BASE, linestyle="--", linewidth=1)
    axes.set_title(name, fontsize=9)
    axes.tick_params(labelsize=8)
    return svg_text(figure, f"{name} over the evaluations, beside the base")


def density_figure(names: Sequence[str], densities: Sequence[float]) -> str:
    """Share of cut weights a tensor, in the order of the network."""
    figure = Figure(figsize=(6.2, max(1.6, 0.15 * len(names))), layout="constrained")
    axes = figure.subplots()
    positions = np.arange(len(names))
    axes.barh(positions, [100 * (1 - density) for density in densities], color=ADAPTED)
    axes.set_yticks(positions, names, fontsize=6)
    axes.invert_yaxis()
    axes.set_xlabel("% of weights cut")
    return svg_text(figure, "Share of cut weights by tensor")


def map_figure(base: np.ndarray, adapted: np.ndarray, colours: np.ndarray) -> str:
    """Two maps (N, 2) of the same images; an image has the same colour (N,) in both."""
    figure = Figure(figsize=(6.2, 3.0), layout="constrained")
    for axes, points, title in zip(figure.subplots(1, 2), (base, adapted), ("base", "adapted"), strict=True):
        axes.scatter(points[:, 0], points[:, 1], c=colours, cmap="tab10", s=9, linewidths=0)
        axes.set_title(title, fontsize=9)
        axes.set_xticks([])
        axes.set_yticks([])
    return svg_text(figure, "Two maps of the same images, before and after")


def thumbnail(path: Path, preprocessing: Preprocessing) -> str:
    """Data address of an image as the network sees it, small."""
    image = preprocessing.crop(read_image(path)).resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BILINEAR)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _smoothed(values: Sequence[float], weight: float = 0.9) -> list[float]:
    smoothed: list[float] = []
    for value in values:
        smoothed.append(value if not smoothed else weight * smoothed[-1] + (1 - weight) * value)
    return smoothed


def svg_text(figure: Figure, alt: str) -> str:
    """A figure as an SVG element; `alt` says in words what it shows."""
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    buffer = io.StringIO()
    # a fixed salt and no date: the same run gives the same page
    with mpl.rc_context({"svg.hashsalt": "smn", "svg.fonttype": "path"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    named = f'<svg class="picture" role="img" aria-label="{escape(alt)}"'
    return named + text[text.index("<svg") + len("<svg") :]
