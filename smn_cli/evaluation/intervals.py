"""How sure a difference is: the paired bootstrap over test images; of few images, score intervals."""

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np
from torch import Tensor

from smn_cli.schemas.scores import GainJson, ShareJson
from smn_cli.seeding import resampling_generator

Verdict = Literal["better", "same", "worse"]
_DRAWS_AT_A_TIME = 500
"""Bounds the memory where no two images are alike."""


@dataclass(frozen=True)
class Share:
    """A share of images, 0 to 1, with its 95 % interval."""

    value: float
    low: float
    high: float

    def to_json(self) -> ShareJson:
        """As in the contract's JSON."""
        return {"value": self.value, "low": self.low, "high": self.high}


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

    def to_json(self) -> GainJson:
        """As in the contract's JSON."""
        return {"value": self.value, "low": self.low, "high": self.high}


def paired_gain(
    base_correct: Tensor, adapted_correct: Tensor, *, num_resamples: int = 10_000, level: float = 0.95, seed: int = 0
) -> Gain:
    """Percentile bootstrap of the mean difference over the same images.

    Resampling images with replacement and counting how often the difference is -1, 0 and 1 is one multinomial draw,
    so no image needs to be touched again.

    Args:
        base_correct, adapted_correct: (T,) bool, the same images in the same order; at least one.
        num_resamples: bootstrap draws.
        level: coverage of the interval.
        seed: of the draws.
    """
    difference = adapted_correct.long() - base_correct.long()
    counts = np.array([int((difference == sign).sum()) for sign in (-1, 0, 1)])
    total = int(counts.sum())
    draws = resampling_generator(seed).multinomial(total, counts / total, size=num_resamples)
    means = (draws[:, 2] - draws[:, 0]) / total
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Gain((int(counts[2]) - int(counts[0])) / total, float(low), float(high))


def crossed_gain(
    base_correct: Tensor, adapted_correct: Tensor, *, num_resamples: int = 10_000, level: float = 0.95, seed: int = 0
) -> Gain:
    """The same where each network was tried several times, with other labels each time.

    A draw takes repeats and, apart from them, images with replacement, the same ones for both networks: the interval is
    about other labels and other images. Images whose differences are alike in all repeats are drawn together, as in
    `paired_gain`.

    Args:
        base_correct, adapted_correct: (R, T) bool, the same repeats and images; at least one of each.
        num_resamples, level, seed: as in `paired_gain`.
    """
    difference = (adapted_correct.long() - base_correct.long()).numpy()
    patterns, counts = np.unique(difference, axis=1, return_counts=True)
    num_repeats, num_images = difference.shape
    generator = resampling_generator(seed)
    repeats = generator.multinomial(num_repeats, [1 / num_repeats] * num_repeats, size=num_resamples)
    means = np.empty(num_resamples)
    for start in range(0, num_resamples, _DRAWS_AT_A_TIME):
        stop = min(start + _DRAWS_AT_A_TIME, num_resamples)
        images = generator.multinomial(num_images, counts / num_images, size=stop - start)
        means[start:stop] = ((images @ patterns.T) * repeats[start:stop]).sum(axis=1)
    low, high = np.quantile(means / difference.size, [(1 - level) / 2, (1 + level) / 2])
    return Gain(int(difference.sum()) / difference.size, float(low), float(high))


def paired_difference(base: Tensor, adapted: Tensor, *, num_resamples: int = 2000, seed: int = 0) -> Gain:
    """The same for a measure that is no mere right or wrong.

    Args:
        base, adapted: (T,) a number for each image, the same images in the same order; at least one.
        num_resamples: bootstrap draws.
        seed: of the draws.
    """
    difference = (adapted - base).double().numpy()
    generator = resampling_generator(seed)
    means = np.empty(num_resamples)
    for start in range(0, num_resamples, _DRAWS_AT_A_TIME):
        stop = min(start + _DRAWS_AT_A_TIME, num_resamples)
        means[start:stop] = generator.choice(difference, (stop - start, len(difference))).mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return Gain(float(difference.mean()), float(low), float(high))


def wilson_share(num_right: int, num_images: int, *, level: float = 0.95) -> Share:
    """Wilson's score interval of a share (1927), which holds for few images and at 0 and 1, too.

    Args:
        num_right: of the images.
        num_images: 1 or more.
        level: coverage of the interval.
    """
    share, z = num_right / num_images, NormalDist().inv_cdf((1 + level) / 2)
    middle = share + z * z / (2 * num_images)
    reach = z * math.sqrt(share * (1 - share) / num_images + (z / (2 * num_images)) ** 2)
    shrink = 1 + z * z / num_images
    # rounding must not put an end beyond the share itself, nor beyond 0 and 1
    low, high = max(0.0, (middle - reach) / shrink), min(1.0, (middle + reach) / shrink)
    return Share(share, min(low, share), max(high, share))


def few_images_gain(base_correct: Tensor, adapted_correct: Tensor, *, level: float = 0.95) -> Gain:
    """A paired difference with an interval for few images, where the bootstrap knows no doubt (one image: no width).

    Newcombe's method 10 (Statistics in Medicine 17, 1998, 2635-2650): Wilson's intervals of both shares, put together
    with the correlation of the answers, which a continuity correction draws towards none.

    Args:
        base_correct, adapted_correct: (T,) bool, the same images in the same order; at least one.
        level: coverage of the interval.
    """
    total = len(base_correct)
    both, won = int((base_correct & adapted_correct).sum()), int((~base_correct & adapted_correct).sum())
    lost = int((base_correct & ~adapted_correct).sum())
    neither = total - both - won - lost
    new, old = (wilson_share(both + num, total, level=level) for num in (won, lost))
    spread = math.sqrt((both + won) * (lost + neither) * (both + lost) * (won + neither))
    together = both * neither - won * lost
    corrected = max(together - total / 2, 0.0) if together > 0 else together
    correlation = corrected / spread if spread else 0.0

    def reach(one: float, other: float) -> float:
        return math.sqrt(max(0.0, one**2 - 2 * correlation * one * other + other**2))

    value = (won - lost) / total
    low = value - reach(new.value - new.low, old.high - old.value)
    return Gain(value, low, value + reach(new.high - new.value, old.value - old.low))


def overall_verdict(gains: dict[str, Gain]) -> Verdict:
    """worse if any metric is worse; else better if any is better; else same."""
    verdicts = {gain.verdict for gain in gains.values()}
    if "worse" in verdicts:
        return "worse"
    return "better" if "better" in verdicts else "same"
