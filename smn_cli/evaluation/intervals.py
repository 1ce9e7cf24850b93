"""How sure a difference is: the paired bootstrap over test images."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from torch import Tensor

Verdict = Literal["better", "same", "worse"]


@dataclass(frozen=True)
class Gain:
    """A mean difference over images, adapted minus base, with its 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def verdict(self) -> Verdict:
        """better or worse if the interval leaves out 0, else same."""
        if self.low > 0:
            return "better"
        return "worse" if self.high < 0 else "same"


def paired_gain(
    base_correct: Tensor, adapted_correct: Tensor, *, num_resamples: int = 10_000, level: float = 0.95, seed: int = 0
) -> Gain:
    """Percentile bootstrap of the mean difference over the same images.

    Resampling images with replacement and counting how often the difference is -1, 0 and 1 is one multinomial draw,
    so no image needs to be touched again.

    Args:
        base_correct, adapted_correct: (Q,) bool, the same images in the same order; at least one.
        num_resamples: bootstrap draws.
        level: coverage of the interval.
        seed: of the draws.
    """
    difference = adapted_correct.long() - base_correct.long()
    counts = np.array([int((difference == sign).sum()) for sign in (-1, 0, 1)])
    total = int(counts.sum())
    draws = np.random.default_rng(seed).multinomial(total, counts / total, size=num_resamples)
    means = (draws[:, 2] - draws[:, 0]) / total
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Gain((int(counts[2]) - int(counts[0])) / total, float(low), float(high))


def paired_difference(base: Tensor, adapted: Tensor, *, num_resamples: int = 2000, seed: int = 0) -> Gain:
    """The same for a measure that is no mere right or wrong.

    Args:
        base, adapted: (Q,) a number for each image, the same images in the same order; at least one.
        num_resamples: bootstrap draws.
        seed: of the draws.
    """
    difference = (adapted - base).double().numpy()
    generator = np.random.default_rng(seed)
    means = [generator.choice(difference, len(difference)).mean() for _ in range(num_resamples)]
    low, high = np.quantile(means, [0.025, 0.975])
    return Gain(float(difference.mean()), float(low), float(high))


def overall_verdict(gains: dict[str, Gain]) -> Verdict:
    """worse if any metric is worse; else better if any is better; else same."""
    verdicts = {gain.verdict for gain in gains.values()}
    if "worse" in verdicts:
        return "worse"
    return "better" if "better" in verdicts else "same"
