"""Gates are read from METRIC=NUMBER and fail whatever is below them or was never computed."""

import pytest

from smn_cli.errors import UsageError
from smn_cli.evaluation.gates import Gate, check_gates, parse_gate


def test_a_gate_is_read_with_its_metric_and_bound() -> None:
    assert parse_gate("knn.top1=0.70", on_gain=False) == Gate("knn.top1", 0.7, on_gain=False)
    assert parse_gate("knn.top1@20=-5e-3", on_gain=True) == Gate("knn.top1@20", -0.005, on_gain=True)


def test_names_tell_bounds_on_scores_and_on_gains_apart() -> None:
    assert parse_gate("knn.top1=0.70", on_gain=False).name == "knn.top1>=0.7"
    assert parse_gate("knn.top1=0", on_gain=True).name == "gain(knn.top1)>=0"


@pytest.mark.parametrize("text", ["knn.top1", "=0.7", "knn.top1=", "knn.top1=high", "a=1=2", "", "a=nan", "a=inf"])
@pytest.mark.parametrize(("on_gain", "option"), [(False, "`fail_under`"), (True, "`min_gain`")])
def test_anything_else_is_refused_with_the_option_and_an_example(text: str, on_gain: bool, option: str) -> None:
    with pytest.raises(UsageError) as error_info:
        parse_gate(text, on_gain=on_gain)
    assert str(error_info.value) == f"{option} {text}: expected METRIC=NUMBER, such as knn.top1=0.70"


@pytest.mark.parametrize(("value", "passed"), [(0.7, True), (0.70001, True), (0.69999, False), (float("nan"), False)])
def test_a_score_passes_at_its_bound_and_above(value: float, passed: bool) -> None:
    [result] = check_gates([Gate("m", 0.7, on_gain=False)], {"m": value}, {})
    assert result.passed is passed


def test_gates_on_gains_look_at_gains_only() -> None:
    gates = [Gate("m", 0.0, on_gain=True), Gate("m", 0.5, on_gain=False)]
    results = check_gates(gates, {"m": 0.9}, {"m": -0.1})
    assert [result.to_json() for result in results] == [
        {"gate": "gain(m)>=0", "value": -0.1, "passed": False},
        {"gate": "m>=0.5", "value": 0.9, "passed": True},
    ]


def test_a_metric_that_was_not_computed_fails_its_gate() -> None:
    gates = [Gate("linear.top1", 0.0, on_gain=False), Gate("m", -1.0, on_gain=True)]
    assert [(result.value, result.passed) for result in check_gates(gates, {"m": 0.9}, {})] == [(None, False)] * 2
