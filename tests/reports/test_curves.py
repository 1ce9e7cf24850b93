"""Axes on which a small change looks small, and a curve for every number there is."""

from typing import Any

import pytest

from smn_cli.reports.curves import READINGS, axis_range, health_curves, loss_curve

pytestmark = pytest.mark.drawn
BASE = {"neighbour_likeness": 0.32, "effective_rank": 73.4, "drift": -1e-9}


def evaluations(**more: float) -> list[dict[str, Any]]:
    values = {"neighbour_likeness": 0.34, "effective_rank": 74.2, "drift": 0.1}
    return [{"step": step, "evaluation": values | more} for step in (40, 80)]


def test_one_per_cent_of_a_rank_is_one_per_cent_of_its_axis() -> None:
    low, high = axis_range([73.4, 74.2], READINGS["effective_rank"])
    assert low == 0
    assert (74.2 - 73.4) / (high - low) < 0.01


@pytest.mark.parametrize("name", [name for name in READINGS if name != "effective_rank"])
@pytest.mark.parametrize("values", [(0.0, 0.01), (0.5, 0.5), (0.98, 1.0), (0.1, 0.9)])
def test_other_axes_are_wide_hold_all_values_and_end_where_values_do(name: str, values: tuple[float, float]) -> None:
    reading = READINGS[name]
    low, high = axis_range(values, reading)
    assert low <= values[0] <= values[1] <= high
    assert high - low >= reading.span - 1e-9 or (low, high) == (reading.least, reading.most)
    assert reading.least is not None
    assert reading.most is not None
    assert reading.least <= low + 1e-9
    assert high <= reading.most + 1e-9


def test_each_number_has_a_curve_that_says_its_ends_and_which_way_is_good() -> None:
    curves = health_curves(BASE, evaluations())
    assert [curve.name for curve in curves] == ["Neighbour likeness", "Effective rank", "Drift"]
    assert [curve.change for curve in curves] == ["0.320 to 0.340", "73.4 to 74.2", "0.000 to 0.100"]
    assert all("good" in curve.meaning for curve in curves)
    assert 'aria-label="effective rank over the steps, 73.4 to 74.2; dashed: the base, 73.4"' in curves[1].picture
    assert "<text" in curves[1].picture  # text is text


def test_labels_and_a_witness_have_curves_too() -> None:
    found = evaluations(**{"knn.top1": 0.9, "base knn.top1": 0.8, "witness_agreement": 0.4})
    *_, accuracy, witness = health_curves(BASE, found)
    assert (accuracy.name, accuracy.change) == ("Knn.top1", "0.800 to 0.900")
    assert (witness.name, witness.change) == ("Witness agreement", "0.400 to 0.400")
    assert "dashed" not in witness.picture.split("</svg>")[0].split(">")[0]


def test_before_the_first_step_there_is_no_curve() -> None:
    assert loss_curve([]) is None
    assert health_curves(BASE, []) == []
    curve = loss_curve([{"step": 1, "loss": 2.0, "log_k": 3.0}, {"step": 2, "loss": float("inf"), "log_k": 3.0}])
    assert curve is not None
    assert curve.change == "2.000 to inf"
