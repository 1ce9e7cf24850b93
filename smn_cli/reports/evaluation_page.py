"""An evaluation as one HTML page that loads nothing from anywhere and needs no script."""

from collections.abc import Sequence
from typing import Any

from smn_cli.evaluation.compare import Comparison
from smn_cli.evaluation.details import ChangedImage, Confusion, MetricDetails
from smn_cli.reports.evaluation import Evaluation
from smn_cli.reports.figures import thumbnail
from smn_cli.reports.low_shot import low_shot_part
from smn_cli.reports.render import render_page
from smn_cli.reports.score_rows import VERDICT_WORDS, control_rows, native_notes, score_columns, score_rows
from smn_cli.reports.summary import class_cells
from smn_cli.reports.text import sentence

MAX_IMAGES, MAX_CONFUSED, MAX_MATRIX = 24, 20, 20
"""Images shown of each kind, rows of confusion, and classes of which a whole matrix can be read."""
UNKNOWN = "another class"


def evaluation_page(evaluation: Evaluation) -> bytes:
    """Verdict and gates, scores, and behind each metric the classes, their confusion and the images that changed.

    Raises:
        DataError: an image that is to be shown can no longer be read.
    """
    verdict = next(iter(evaluation.comparisons.values())).verdict
    return render_page(
        "evaluation.html.j2",
        evaluation=evaluation,
        headline=sentence(evaluation.headline),
        is_better=verdict == "better",
        is_bad=verdict == "worse" or bool(evaluation.failed),
        networks=[_network(evaluation, name, each) for name, each in evaluation.comparisons.items()],
        few=low_shot_part(evaluation.rows) if evaluation.rows else None,
    )


def _network(evaluation: Evaluation, name: str, comparison: Comparison) -> dict[str, Any]:
    verdict = comparison.verdict
    words = "" if verdict is None else f"{evaluation.subject(name)} is {VERDICT_WORDS[verdict]}"
    return {
        "title": f"Scores, {name}" if len(evaluation.comparisons) > 1 else "Scores",
        "columns": score_columns("top-1 accuracy", comparison),
        "scores": score_rows(comparison),
        "verdict": sentence(words),
        "controls": control_rows(comparison),
        "control_columns": score_columns("top-1 accuracy", comparison),
        "notes": [sentence(note) for note in native_notes(comparison)],
        "metrics": [_metric(evaluation, metric, each) for metric, each in evaluation.details[name].items()],
    }


def _metric(evaluation: Evaluation, name: str, details: MetricDetails) -> dict[str, Any]:
    confused = [each for each in details.confusion if not each.is_right]
    confused.sort(key=lambda each: -each.most)
    better, worse = details.better or [], details.worse or []
    names = [each.name for each in details.classes]
    is_small = len({*names, *(each.predicted for each in details.confusion)}) <= MAX_MATRIX
    return {
        "name": name,
        "classes": [{"cells": class_cells(each), "accuracy": each} for each in details.classes],
        "confused": [_confusion_cells(each) for each in confused[:MAX_CONFUSED]],
        "matrices": _matrices(details, names) if is_small and confused else {},
        "columns": _columns(details, names),
        "better": None if details.better is None else _images(evaluation, better),
        "worse": None if details.worse is None else _images(evaluation, worse),
        "num_better": len(better),
        "num_worse": len(worse),
    }


def _columns(details: MetricDetails, names: Sequence[str]) -> list[str]:
    """Classes of the test images, then others that some are taken for."""
    return list(dict.fromkeys([*names, *(each.predicted or UNKNOWN for each in details.confusion)]))


def _matrices(details: MetricDetails, names: Sequence[str]) -> dict[str, dict[str, dict[str, int]]]:
    """By network, class and what its images are taken for, how many they are."""
    columns = _columns(details, names)
    found = {}
    for title in ("base", "adapted"):
        if all(getattr(each, title) is None for each in details.confusion):
            continue
        rows = {name: dict.fromkeys(columns, 0) for name in names}
        for each in details.confusion:
            rows[each.label][each.predicted or UNKNOWN] = getattr(each, title) or 0
        found[title] = rows
    return found


def _confusion_cells(each: Confusion) -> list[str]:
    counts = ["" if count is None else str(count) for count in (each.base, each.adapted)]
    return [each.label, each.predicted or UNKNOWN, *counts]


def _images(evaluation: Evaluation, images: Sequence[ChangedImage]) -> list[dict[str, str]]:
    return [
        {
            "address": thumbnail(evaluation.test_paths[each.position], evaluation.preprocessing),
            "path": each.path,
            "label": each.label,
            "base": each.base or UNKNOWN,
            "adapted": each.adapted or UNKNOWN,
        }
        for each in images[:MAX_IMAGES]
    ]
