"""Which masks are learned depends on initial score, threshold and learning rate only together (2409.07577, 3.2)."""

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest
import torch
from torch import Tensor

from smn_cli.masking.backbone import density
from smn_cli.training.session import Session
from tests.conftest import CONVNET, VIT
from tests.small_runs import Workshop, equal, masks_of, metrics, scores_of

NUM_STEPS = 8


@pytest.mark.parametrize(("arch", "norm_stats"), [(CONVNET, "adapt"), (VIT, "frozen")])
def test_scaling_start_and_learning_rate_by_two_gives_the_same_masks_bit_for_bit(
    workshop: Callable[..., Workshop], arch: str, norm_stats: str
) -> None:
    place = workshop(arch)
    options: dict[str, Any] = {"steps": NUM_STEPS, "threshold": 0.0, "norm_stats": norm_stats}
    one = place.finish("one", score_start=1.0, lr_scores=50.0, **options)
    two = place.finish("two", score_start=2.0, lr_scores=100.0, **options)
    assert density(masks_of(one)) < 1
    assert equal(masks_of(one), masks_of(two))
    assert equal({name: 2 * scores for name, scores in scores_of(one).items()}, scores_of(two))
    assert [line["loss"] for line in metrics(one)] == [line["loss"] for line in metrics(two)]


def test_scaling_the_start_alone_gives_other_masks(workshop: Callable[..., Workshop]) -> None:
    place = workshop()
    one = place.finish("one", steps=NUM_STEPS, score_start=1.0, lr_scores=50.0)
    two = place.finish("two", steps=NUM_STEPS, score_start=2.0, lr_scores=50.0)
    assert density(masks_of(two)) > density(masks_of(one))


@pytest.mark.parametrize(("arch", "lr_scores"), [(CONVNET, 50.0), (VIT, 1000.0)])
def test_shifting_start_and_threshold_as_well_differs_only_within_rounding_of_the_threshold(
    workshop: Callable[..., Workshop], arch: str, lr_scores: float
) -> None:
    """The paper's own example: (1, 0, 50) and (2.5, 0.5, 100), that is times two, then plus a half.

    Gradients depend on scores through the masks alone, so until a first mask bit differs both runs see the same bits
    of gradient, and scores part by the rounding of their sums: at most half a unit in the last place a step, of scores
    below 2^e. From a differing bit on the theorem, which is of real numbers, says nothing: the comparison ends there.
    """
    place = workshop(arch)
    plain = place.start("plain", steps=NUM_STEPS, score_start=1.0, threshold=0.0, lr_scores=lr_scores)
    moved = place.start("moved", steps=NUM_STEPS, score_start=2.5, threshold=0.5, lr_scores=2 * lr_scores)
    rounding = Fraction(0)
    num_differing = num_compared = 0
    lowest_density = 1.0
    for first, second in zip(plain.steps(), moved.steps(), strict=True):
        assert first.loss == second.loss
        lowest_density = min(lowest_density, first.density)
        rounding += _half_unit(plain, 2) + _half_unit(moved, 1)
        differing = _differing_margins(plain, moved, float(rounding))
        num_compared += 1
        num_differing += len(differing)
        assert all(abs(margin) <= rounding for margin in differing)
        if differing:
            break
    assert lowest_density < 1
    # 1e5 scores at hand, each within 1e-5 of the threshold with a chance of about 1e-5
    assert num_differing <= 10
    assert num_compared == NUM_STEPS or num_differing > 0


def _half_unit(session: Session, factor: int) -> Fraction:
    """Largest rounding error of one update of the scores, in the units of the doubled run."""
    largest = max(float(scores.abs().max()) for scores in scores_of(session).values())
    exponent = torch.frexp(torch.tensor(largest)).exponent
    return Fraction(factor) * Fraction(2) ** (int(exponent) - 25)  # 24 bits of mantissa, and half of the last


def _differing_margins(plain: Session, moved: Session, bound: float) -> list[float]:
    """Distance from the threshold, in doubled units, of each score whose mask bits differ; all scores must agree."""
    margins: list[float] = []
    for name, scores in scores_of(plain).items():
        doubled: Tensor = 2 * scores.double()
        shifted = scores_of(moved)[name].double() - 0.5
        assert float((doubled - shifted).abs().max()) <= bound
        margins += doubled[(doubled > 0) != (shifted > 0)].tolist()
    return margins
