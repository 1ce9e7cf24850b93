"""Gates are read from METRIC=NUMBER and fail whatever is below them or was never computed."""

import pytest

from smn_cli.errors import UsageError
from smn_cli.evaluation.gates import Gate, check_gates, check_metrics, parse_gate
from smn_cli.evaluation.metric_names import metric_names


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


NAMES = metric_names(knn=True, linear=False, ks=(200, 20), has_controls=True, has_stages=True)


@pytest.mark.parametrize(
    ("text", "on_gain", "told"),
    [
        (
            "knn.top=0.7",
            False,
            "`fail_under` knn.top=0.7: knn.top is not among the metrics here; did you mean knn.top1? ",
        ),
        (
            "knn.top1@2O=1",
            True,
            "`min_gain` knn.top1@2O=1: knn.top1@2O is not among the metrics here; did you mean knn.",
        ),
        (
            "linear.top1=0",
            False,
            "linear.top1 is not among the metrics here; `linear` asks for it; expected one of knn",
        ),
        ("stages.knn.top1=0", True, "stages.knn.top1 has no gain here; expected one of knn.top1, knn.top1@20, centred"),
        (
            "accuracy=0",
            False,
            "accuracy is not among the metrics here; expected one of knn.top1, knn.top1@20, centred.",
        ),
    ],
)
def test_a_gate_on_what_will_not_be_measured_is_refused_with_what_can_be(text: str, on_gain: bool, told: str) -> None:
    with pytest.raises(UsageError) as error_info:
        check_metrics([Gate("knn.top1", 0.5, on_gain=True), parse_gate(text, on_gain=on_gain)], NAMES)
    assert told in str(error_info.value)
    known = NAMES.gains if on_gain else NAMES.values
    assert str(error_info.value).endswith(f"expected one of {', '.join(known)}")


def test_a_base_alone_has_no_gains_to_hold() -> None:
    with pytest.raises(UsageError, match=r"knn\.top1 has no gain here; a base alone has no gains, so leave it out"):
        check_metrics(
            [Gate("knn.top1", 0, on_gain=True)], metric_names(knn=True, linear=True, ks=(5,), is_adapted=False)
        )


def test_gates_on_what_will_be_measured_are_let_through() -> None:
    check_metrics(
        [*(Gate(name, 0, False) for name in NAMES.values), *(Gate(name, 0, True) for name in NAMES.gains)], NAMES
    )


def test_a_result_tells_what_was_found_and_expected() -> None:
    [high, gone] = check_gates([Gate("m", 0.7, on_gain=False), Gate("n", 0, on_gain=True)], {"m": 0.65}, {})
    assert high.told == "m is 0.6500, expected 0.7 or more"
    assert gone.told == "gain(n) was not computed, expected 0 or more"
