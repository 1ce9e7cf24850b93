"""Gains against the exact bootstrap distribution, and the verdict that follows from their intervals."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from torch import Tensor

from smn_cli.evaluation.intervals import (
    Gain,
    crossed_gain,
    few_images_gain,
    overall_verdict,
    paired_gain,
    wilson_share,
)


def answers(num_lost: int, num_kept: int, num_won: int) -> tuple[Tensor, Tensor]:
    """Base and adapted answers: so many right before only, alike in both, right after only."""
    kept = [number % 2 == 0 for number in range(num_kept)]
    base = [True] * num_lost + kept + [False] * num_won
    adapted = [False] * num_lost + kept + [True] * num_won
    return torch.tensor(base), torch.tensor(adapted)


def binomial_quantile(n: int, p: float, level: float) -> int:
    """Smallest count whose cumulative probability reaches the level."""
    total = 0.0
    for count in range(n + 1):
        total += math.comb(n, count) * p**count * (1 - p) ** (n - count)
        if total >= level:
            return count
    return n


@pytest.mark.parametrize(("num_kept", "num_won"), [(60, 40), (10, 10), (95, 5), (3, 1)])
def test_with_wins_only_the_interval_is_that_of_the_binomial(num_kept: int, num_won: int) -> None:
    total = num_kept + num_won
    gain = paired_gain(*answers(0, num_kept, num_won), num_resamples=200_000)
    low, high = (binomial_quantile(total, num_won / total, level) / total for level in (0.025, 0.975))
    assert gain.value == num_won / total
    # a bootstrap of 200,000 draws may land one count beside the exact quantile
    assert abs(gain.low - low) <= 1.0001 / total
    assert abs(gain.high - high) <= 1.0001 / total


def test_for_many_images_the_interval_is_that_of_the_normal_law() -> None:
    gain = paired_gain(*answers(1000, 7000, 2000), num_resamples=100_000)
    deviation = math.sqrt((0.3 - 0.1**2) / 10_000)  # of a mean of differences -1, 0, 1 with shares .1, .7, .2
    assert gain.value == 0.1
    # the standard error of a 2.5 % quantile of 100,000 draws is .8 % of the deviation
    assert gain.low == pytest.approx(0.1 - 1.96 * deviation, abs=0.04 * deviation)
    assert gain.high == pytest.approx(0.1 + 1.96 * deviation, abs=0.04 * deviation)


def test_a_lower_level_gives_a_narrower_interval() -> None:
    wide, narrow = (paired_gain(*answers(100, 700, 200), level=level) for level in (0.95, 0.5))
    assert wide.low < narrow.low < 0.1 < narrow.high < wide.high


def test_only_pairs_count_so_images_alike_in_both_may_be_right_or_wrong() -> None:
    base, adapted = answers(5, 40, 9)
    agrees = base == adapted
    assert paired_gain(base | agrees, adapted | agrees) == paired_gain(base, adapted)


def test_swapping_the_networks_mirrors_value_and_interval() -> None:
    base, adapted = answers(13, 60, 31)
    forwards, backwards = paired_gain(base, adapted), paired_gain(adapted, base)
    assert backwards.value == -forwards.value
    # each side has its own draws: a count or two apart
    assert backwards.low == pytest.approx(-forwards.high, abs=2 / 104)
    assert backwards.high == pytest.approx(-forwards.low, abs=2 / 104)


def test_the_order_of_the_images_and_a_second_call_change_nothing() -> None:
    base, adapted = answers(13, 60, 31)
    shuffled = torch.randperm(len(base))
    assert paired_gain(base[shuffled], adapted[shuffled]) == paired_gain(base, adapted)


@pytest.mark.parametrize("num_images", [1, 2, 99])
def test_equal_answers_give_no_gain_and_no_doubt(num_images: int) -> None:
    right = torch.arange(num_images) % 2 == 0
    assert paired_gain(right, right) == Gain(0.0, 0.0, 0.0)


def test_all_won_is_certain() -> None:
    assert paired_gain(torch.zeros(7, dtype=torch.bool), torch.ones(7, dtype=torch.bool)) == Gain(1.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(0.01, 0.2, "better"), (0.0, 0.2, "same"), (-0.1, 0.1, "same"), (-0.2, 0.0, "same"), (-0.2, -0.01, "worse")],
)
def test_a_gain_is_judged_by_whether_its_interval_leaves_out_zero(low: float, high: float, verdict: str) -> None:
    assert Gain((low + high) / 2, low, high).verdict == verdict


BETTER, SAME, WORSE = Gain(0.1, 0.05, 0.2), Gain(0.0, -0.1, 0.1), Gain(-0.1, -0.2, -0.05)


@pytest.mark.parametrize(
    ("gains", "verdict"),
    [
        ([BETTER], "better"),
        ([SAME], "same"),
        ([WORSE], "worse"),
        ([SAME, BETTER], "better"),
        ([BETTER, WORSE], "worse"),
        ([SAME, WORSE], "worse"),
        ([SAME, SAME], "same"),
    ],
)
def test_one_worse_metric_makes_the_whole_worse(gains: list[Gain], verdict: str) -> None:
    assert overall_verdict({str(number): gain for number, gain in enumerate(gains)}) == verdict


def crossed_slowly(difference: Tensor, *, num_resamples: int, seed: int) -> tuple[float, float]:
    """The crossed bootstrap as it is told: repeats and images drawn with replacement, again and again."""
    generator = np.random.default_rng(seed)
    num_repeats, num_images = difference.shape
    means = [
        difference[generator.integers(0, num_repeats, num_repeats)][:, generator.integers(0, num_images, num_images)]
        .double()
        .mean()
        for _ in range(num_resamples)
    ]
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def test_the_crossed_interval_is_that_of_drawing_repeats_and_images() -> None:
    generator = torch.Generator().manual_seed(0)
    hard = torch.rand(80, generator=generator)  # images differ, and repeats do, too
    luck = torch.tensor([0.0, 0.1, 0.3, 0.6])[:, None]
    base = torch.rand(4, 80, generator=generator) < 0.5 * hard
    adapted = torch.rand(4, 80, generator=generator) < 0.5 * hard + luck
    gain = crossed_gain(base, adapted)
    low, high = crossed_slowly(adapted.long() - base.long(), num_resamples=4000, seed=1)
    assert gain.value == pytest.approx(float((adapted.double() - base.double()).mean()))
    # a quantile of 4,000 draws varies by some 0.005 where the deviation is 0.1
    assert gain.low == pytest.approx(low, abs=0.02)
    assert gain.high == pytest.approx(high, abs=0.02)


def test_a_single_repeat_is_the_plain_interval() -> None:
    base, adapted = torch.rand(1, 300) < 0.5, torch.rand(1, 300) < 0.6
    crossed, plain = crossed_gain(base, adapted), paired_gain(base[0], adapted[0])
    assert crossed.value == plain.value
    assert (crossed.low, crossed.high) == pytest.approx((plain.low, plain.high), abs=0.01)


def test_repeats_that_agree_say_no_more_than_one() -> None:
    base, adapted = torch.rand(1, 200) < 0.5, torch.rand(1, 200) < 0.6
    one, many = crossed_gain(base, adapted), crossed_gain(base.repeat(20, 1), adapted.repeat(20, 1))
    assert many.value == pytest.approx(one.value)
    assert many.high - many.low == pytest.approx(one.high - one.low, rel=0.1)


def test_networks_that_are_equal_differ_by_nothing_for_certain() -> None:
    right = torch.rand(3, 50) < 0.5
    assert crossed_gain(right, right) == Gain(0.0, 0.0, 0.0)


@pytest.mark.parametrize(("right", "total"), [(0, 1), (1, 1), (0, 26), (26, 26), (7, 26), (4999, 5000)])
@pytest.mark.parametrize("level", [0.95, 0.5])
def test_the_interval_of_a_share_is_wilsons(right: int, total: int, level: float) -> None:
    share = wilson_share(right, total, level=level)
    expected = binomtest(right, total).proportion_ci(level, method="wilson")
    assert (share.value, share.low, share.high) == pytest.approx((right / total, expected.low, expected.high), abs=1e-9)
    assert 0 <= share.low <= share.value <= share.high <= 1


def pairs(both: int, lost: int, won: int, neither: int) -> tuple[Tensor, Tensor]:
    """Answers of two networks, of which so many are right in both, before only, after only, never."""
    base = [True] * (both + lost) + [False] * (won + neither)
    adapted = [True] * both + [False] * lost + [True] * won + [False] * neither
    return torch.tensor(base), torch.tensor(adapted)


def test_the_interval_for_few_images_is_newcombes() -> None:
    """His example of 50 pairs, 36 of which agree: .0569 to .3404 with method 10."""
    gain = few_images_gain(*pairs(36, 2, 12, 0))
    assert (gain.value, gain.low, gain.high) == pytest.approx((0.2, 0.0569, 0.3404), abs=5e-5)


def newcombe_slowly(both: int, lost: int, won: int, neither: int) -> tuple[float, float]:
    """The paper's equations as they stand, with scipy's intervals of the two shares."""
    n, product = both + lost + won + neither, both * neither - lost * won
    a, b = (both + won) / n, (both + lost) / n
    (al, au), (bl, bu) = (binomtest(both + right, n).proportion_ci(0.95, method="wilson") for right in (won, lost))
    corrected = product if product <= 0 else product - n / 2 if product > n / 2 else 0
    phi = corrected / math.sqrt((both + won) * (lost + neither) * (both + lost) * (won + neither))
    below = math.sqrt((a - al) ** 2 - 2 * phi * (a - al) * (bu - b) + (bu - b) ** 2)
    above = math.sqrt((b - bl) ** 2 - 2 * phi * (b - bl) * (au - a) + (au - a) ** 2)
    return a - b - below, a - b + above


@pytest.mark.parametrize("counts", [(53, 2, 9, 1), (20, 1, 3, 9), (2, 5, 6, 3), (3, 1, 1, 2)])
def test_answers_that_go_together_narrow_the_interval_less_than_they_seem_to(counts: tuple[int, int, int, int]) -> None:
    gain = few_images_gain(*pairs(*counts))
    assert (gain.low, gain.high) == pytest.approx(newcombe_slowly(*counts))


def test_a_single_image_leaves_doubt_where_the_bootstrap_has_none() -> None:
    answers = pairs(0, 0, 1, 0)
    assert paired_gain(*answers) == Gain(1.0, 1.0, 1.0)
    assert few_images_gain(*answers).verdict == "same"


@pytest.mark.parametrize(
    "counts", [(5, 0, 0, 0), (0, 0, 0, 3), (3, 0, 0, 4), (9, 1, 6, 10), (0, 4, 4, 0), (2, 7, 0, 1)]
)
def test_swapping_the_networks_mirrors_the_interval_for_few_images(counts: tuple[int, int, int, int]) -> None:
    forwards, backwards = few_images_gain(*pairs(*counts)), few_images_gain(*reversed(pairs(*counts)))
    assert (backwards.value, backwards.low, backwards.high) == pytest.approx(
        (-forwards.value, -forwards.high, -forwards.low)
    )
    assert -1 <= forwards.low <= forwards.value <= forwards.high <= 1


def test_of_many_images_both_intervals_agree() -> None:
    many = pairs(4000, 500, 900, 600)
    few, bootstrap = few_images_gain(*many), paired_gain(*many, num_resamples=100_000)
    # the correction is below one image in six thousand; quantiles of the draws vary by a few tenths of that
    assert (few.low, few.high) == pytest.approx((bootstrap.low, bootstrap.high), abs=1e-3)
