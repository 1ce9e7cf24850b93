"""Names of the metrics that an evaluation gives, known before anything is embedded, and without torch."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

DEFAULT_KS = (200, 20)
"""Neighbours: the paper's, and the number that is common elsewhere."""
READOUTS: tuple[Literal["centred", "whitened"], ...] = ("centred", "whitened")
STAGES, NATIVE = "stages", "native"
"""The controls: readings of the features, of the base's stages, and the base at its own size."""


class MetricNames(NamedTuple):
    """What can be asked for.

    Attributes:
        values: metrics of the adapted network, or of a base alone.
        gains: those that have a gain over the base.
    """

    values: list[str]
    gains: list[str]


def metric_names(
    *,
    knn: bool,
    linear: bool,
    ks: Sequence[int],
    num_train: int | None = None,
    is_adapted: bool = True,
    has_classifier: bool = False,
    has_controls: bool = False,
    has_stages: bool = False,
    fractions: Sequence[float] = (),
) -> MetricNames:
    """Names of all metrics that an evaluation with these choices gives.

    Args:
        knn, linear: which scores.
        ks: neighbours.
        num_train: training images, above which no k goes; None while it is not known.
        is_adapted: whether there is an adapted network beside the base.
        has_classifier: whether it carries a classifier.
        has_controls: whether what needs no training is scored, too.
        has_stages: whether that includes the base's stages.
        fractions: parts of the labels that are scored, too.
    """
    neighbours = knn_names(usable_ks(ks, num_train)) if knn else []
    plain = neighbours + ["linear.top1"] * linear
    values, gains = [*plain], [*plain] * is_adapted
    if has_classifier and is_adapted:
        values.append("classifier.top1")
    if has_controls:
        values += [f"{kind}.{name}" for kind in (*READOUTS, *[STAGES] * has_stages) for name in neighbours]
        values += [f"{NATIVE}.{name}" for name in plain]
        gains += [f"{kind}.{name}" for kind in READOUTS for name in neighbours] * is_adapted
        gains += [f"{NATIVE}.{name}" for name in plain] * is_adapted
    if fractions:  # which have every k of the options, each cut for itself
        whole = metric_names(knn=knn, linear=linear, ks=ks).values
        few = [at_fraction(name, each) for each in fractions for name in whole]
        values, gains = values + few, gains + few * is_adapted
    return MetricNames(values, gains)


def knn_names(ks: Sequence[int]) -> list[str]:
    """Metric names of numbers of neighbours, the first of which is plainly top1."""
    return [f"knn.{top1_name(position, k)}" for position, k in enumerate(ks)]


def top1_name(position: int, k: int) -> str:
    """Accuracy with the k at that position of the options."""
    return f"top1@{k}" if position else "top1"


def usable_ks(ks: Sequence[int], num_train: int | None) -> list[int]:
    """At most the number of training images, each once, in the given order."""
    return list(dict.fromkeys(k if num_train is None else min(k, num_train) for k in ks))


def at_fraction(metric: str, fraction: float) -> str:
    """Name of a metric with a fraction of the labels, as gates address it: knn.top1@label:0.1."""
    return f"{metric}@label:{fraction:g}"
