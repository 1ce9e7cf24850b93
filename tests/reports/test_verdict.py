"""The verdict in words has its number, unit and interval, and does not claim more than the judge does."""

from typing import Any

import pytest

from smn_cli.reports.verdict import JudgeUnit, run_verdict
from smn_cli.runs.run_result import Learned

LIKENESS, LABELS, VIEWS = (JudgeUnit(measure, 0.3229, 91) for measure in ("likeness", "labels", "views"))


def learned(step: int, num_steps: int = 200) -> Learned:
    return Learned({}, {}, {}, step, num_steps, True, None, ())


def judged(**gains: tuple[float, float, float]) -> list[dict[str, Any]]:
    names = ("value", "low", "high")
    return [
        {"step": int(step[1:]), "evaluation": {"gain": dict(zip(names, gain, strict=True))}}
        for step, gain in gains.items()
    ]


def test_what_is_kept_has_its_own_number_unit_and_interval() -> None:
    told = judged(_160=(0.0274, 0.0209, 0.0336), _200=(0.5, 0.4, 0.6))
    found = run_verdict(learned(160), told, LIKENESS, keep="best", taken=200)
    assert (found.kind, found.headline) == ("better", "Better than its base, says its judge: step 160 of 200 is kept.")
    assert "from 0.3229 to 0.3503 on 91 images held out: +0.0274 (95 % interval +0.0209 .. +0.0336)." in found.reason


def test_where_views_are_counted_the_verdict_speaks_of_them() -> None:
    found = run_verdict(learned(40), judged(_40=(0.0274, 0.0209, 0.0336)), VIEWS, keep="best", taken=40)
    assert "neighbours that two views of an image have in common (higher is better) went from 0.3229 to" in found.reason
    assert "likeness" not in found.reason


def test_a_run_without_steps_speaks_of_no_alarm() -> None:
    assert "as asked" in run_verdict(learned(0, num_steps=0), [], LIKENESS, keep="best", taken=0).reason
    assert "because of the alarm" in run_verdict(learned(0), [], LIKENESS, keep="best", taken=0).reason


def test_with_labels_the_unit_is_percentage_points() -> None:
    found = run_verdict(learned(40), judged(_40=(0.021, 0.004, 0.038)), LABELS, keep="best", taken=40)
    assert "by +2.1 percentage points (95 % interval +0.4 .. +3.8)" in found.reason
    assert "likeness" not in found.reason


def test_the_base_kept_says_how_near_a_state_came() -> None:
    told = judged(_40=(-0.01, -0.02, 0.0), _80=(0.001, -0.001, 0.003))
    found = run_verdict(learned(0), told, LIKENESS, keep="best", taken=80)
    assert (found.kind, found.headline) == ("identity", "The base is kept.")
    assert "the best of them, step 80, was +0.0010 (95 % interval -0.0010 .. +0.0030)" in found.reason
    assert "Nothing was trained" in run_verdict(learned(0), [], LIKENESS, keep="best", taken=0).reason


@pytest.mark.parametrize(
    ("gain", "kind", "words"),
    [
        ((0.02, 0.01, 0.03), "better", "better than its base"),
        ((0.02, -0.01, 0.05), "same", "not distinguishable from its base"),
        ((-0.02, -0.03, -0.01), "worse", "worse than its base: do not ship it"),
    ],
)
def test_the_last_state_is_called_what_it_is(gain: tuple[float, float, float], kind: str, words: str) -> None:
    found = run_verdict(learned(40), judged(_40=gain), LIKENESS, keep="last", taken=40)
    assert found.kind == kind
    assert found.reason.endswith(f"To its judge it is {words}.")
    assert run_verdict(learned(40), [], LIKENESS, keep="last", taken=40).reason == ""
