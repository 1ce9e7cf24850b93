"""Evaluations made of hand-made answers, with images that can be shown."""

from pathlib import Path
from typing import Any

import torch

from smn_cli.data.preprocessing import Preprocessing
from smn_cli.evaluation.compare import Comparison, Scores, compare
from smn_cli.evaluation.controls import controlled
from smn_cli.evaluation.details import details_of
from smn_cli.evaluation.gates import Gate, check_gates
from smn_cli.reports.evaluation import Evaluation
from tests.conftest import write_images

CLASSES = ["ash", "<b>birch</b> | *x*", "cedar"]
LABELS = torch.arange(30) % 3
BASE = torch.where(torch.arange(30) < 12, (LABELS + 1) % 3, LABELS)
ADAPTED = torch.where(torch.arange(30) % 10 == 9, (LABELS + 1) % 3, LABELS)
PREPROCESSING = Preprocessing(32, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


def scores(predicted: torch.Tensor) -> Scores:
    """Of a network with these answers, with neighbours and probe agreeing."""
    right = predicted == LABELS
    group: Any = {"knn": {"k": 5, "temperature": 0.1, "top1": float(right.double().mean())}}
    names = ("knn.top1", "linear.top1")
    return Scores(group, dict.fromkeys(names, right), dict.fromkeys(names, predicted))


def evaluation(folder: Path, *, bounds: tuple[float, ...] = (), **changes: Any) -> Evaluation:
    """Base and adapted network on 30 images: 11 become right, 2 wrong; a gate on knn.top1 for each bound."""
    write_images(folder, 30)
    paths = sorted(folder.iterdir())
    comparisons: dict[str, Comparison] = {"mine": compare(scores(BASE), scores(ADAPTED))}
    comparisons = changes.pop("comparisons", comparisons)
    names = [str(path) for path in paths]
    gates = [Gate("knn.top1", bound, on_gain=False) for bound in bounds]
    first = next(iter(comparisons.values()))
    content = {
        "arch": "net_<1>",
        "facts": {"labels": "a & b", "test images": "30"},
        "comparisons": comparisons,
        "details": {name: details_of(each, LABELS, CLASSES, names) for name, each in comparisons.items()},
        "gates": check_gates(gates, (first.adapted or first.base).metrics, {}),
        "rows": [],
        "preprocessing": PREPROCESSING,
        "test_paths": paths,
        "seconds": 1.5,
    }
    return Evaluation(**{**content, **changes})


def with_controls(comparison: Comparison) -> Comparison:
    """A comparison with readings that need no training, of which stages have no gain."""
    own = {"centred": comparison.base, "stages": comparison.base}
    adapted = {"centred": comparison.adapted or comparison.base}
    return controlled(comparison, own, adapted if comparison.adapted else {}, None)
