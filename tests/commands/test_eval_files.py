"""smn eval as a team lives with it: gates that are checked first, summary, JUnit file, page and details."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.commands.conftest import Road
from tests.conftest import RESNET, Outcome, write_images

Run = Callable[..., Outcome]


@pytest.fixture
def words(road: Road) -> tuple[object, ...]:
    """An evaluation of the road's adapter."""
    return ("eval", road.labeled, "--adapter", road.adapter, "--weights", road.weights)


@pytest.mark.parametrize(("gate", "code"), [("knn.top1=0", 0), ("knn.top1=1.01", 3)])
def test_all_files_are_written_whether_or_not_a_gate_fails(
    gate: str, code: int, words: tuple[object, ...], run_cli: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = tmp_path / "step.md"
    step.write_text("what an earlier step said")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(step))
    places = {flag: tmp_path / name for flag, name in
              {"--summary": "s.md", "--junit": "j.xml", "--report": "r.html", "--json": "e.json"}.items()}  # fmt: skip
    outcome = run_cli(*words, "--fail-under", gate, *(each for pair in places.items() for each in pair))
    assert outcome.code == code, outcome.err
    summary = places["--summary"].read_text()
    assert f"; {1 - code // 3} of 1 gates passed\n" in summary
    assert step.read_text() == f"what an earlier step said\n{summary}"
    [suite] = ElementTree.parse(places["--junit"]).getroot()
    assert (suite.get("tests"), suite.get("failures")) == ("1", str(code // 3))
    content = json.loads(places["--json"].read_text())
    assert content["passed"] is (code == 0)
    assert places["--report"].read_text().count("<summary>") == len(content["details"])


def test_details_are_those_of_the_scores(road: Road, other_adapter: Path, run_cli: Run, tmp_path: Path) -> None:
    for number, place in enumerate(("train/a", "train/b", "train/c", "test/a", "test/b", "test/c")):
        write_images(tmp_path / "hard" / place, 6, seed=number)  # whose classes mean nothing
    words = ("eval", tmp_path / "hard", "--adapter", other_adapter, "--weights", road.weights)
    content = json.loads(run_cli(*words, "--linear", "--knn", "--no-controls", "--json", "-").out)
    assert content["details"].keys() == content["gain"].keys()
    for metric, details in content["details"].items():
        kind, _, name = metric.partition(".")
        for network in ("base", "adapted"):
            right = sum(each["images"] * each[network]["value"] for each in details["classes"])
            assert right / 18 == pytest.approx(content[network][kind][name])
        changed = len(details["better"]) - len(details["worse"])
        assert changed / 18 == pytest.approx(content["gain"][metric]["value"])
        assert all(Path(each["path"]).is_file() for each in details["better"] + details["worse"])
    assert any(details["better"] + details["worse"] for details in content["details"].values())


@pytest.mark.parametrize("place", ["no/such/folder/step.md", "."])
def test_a_step_summary_that_cannot_be_written_is_a_line_and_no_failure(
    place: str, words: tuple[object, ...], run_cli: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", place)
    outcome = run_cli(*words, "--fail-under", "knn.top1=0")
    assert outcome.code == 0, outcome.err
    [line] = [line for line in outcome.err.splitlines() if line.startswith("warning: ")]
    assert line.startswith(f"warning: GITHUB_STEP_SUMMARY {place} cannot be written (")
    failed = run_cli(*words, "--fail-under", "knn.top1=1.01")
    assert (failed.code, "warning: GITHUB_STEP_SUMMARY" in failed.err) == (3, True)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (
            ("--fail-under", "knn.top=0.7"),
            "--fail-under knn.top=0.7: knn.top is not among the metrics here; did you mean ",
        ),
        (
            ("--fail-under", "linear.top1=0"),
            "linear.top1 is not among the metrics here; --linear asks for it; expected",
        ),
        (("--min-gain", "knn.top1@label:1=0"), "knn.top1@label:1 is not among the metrics here; did you mean knn.top1"),
        (
            ("--no-controls", "--min-gain", "native.knn.top1=0"),
            "did you mean knn.top1? expected one of knn.top1, knn.to",
        ),
    ],
)
def test_a_gate_that_no_network_could_answer_is_refused_before_any_is_loaded(
    more: tuple[str, ...], told: str, words: tuple[object, ...], run_cli: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("smn_cli.commands.eval.open_networks", None)
    monkeypatch.setattr("smn_cli.data.labels.eval_split.load_labeled_split", None)
    refused = run_cli(*words, *more)
    assert (refused.code, told in refused.err) == (2, True), refused.err


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (("--fail-under", "knn.top1@200=0"), "knn.top1@200 is not among the metrics here; did you mean knn.top1@20? "),
        (("--k", "5", "--fail-under", "knn.top1@20=0"), "expected one of knn.top1, centred.knn.top1"),
        (
            ("--fail-under", "classifier.top1=0"),
            "classifier.top1 is not among the metrics here; expected one of knn.top1",
        ),
        (("--min-gain", "stages.knn.top1=0"), "stages.knn.top1 has no gain here; expected one of knn.top1"),
    ],
)
def test_a_gate_that_these_networks_cannot_answer_is_refused_before_any_image_is_embedded(
    more: tuple[str, ...], told: str, words: tuple[object, ...], run_cli: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("smn_cli.commands.eval._score", None)
    refused = run_cli(*words, *more)
    assert (refused.code, told in refused.err) == (2, True), refused.err


@pytest.mark.slow
@pytest.mark.parametrize("more", [(), ("--linear",), ("--knn", "--linear", "--label-fraction", "1,0.5"), ("--k", "50")])
@pytest.mark.parametrize("is_alone", [False, True])
def test_every_metric_that_is_announced_is_measured_and_no_other(
    more: tuple[str, ...], is_alone: bool, words: tuple[object, ...], road: Road, run_cli: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    announced: list[Any] = []
    measured: dict[str, Any] = {}

    def hear(gates: Any, names: Any) -> None:
        announced.append(names)

    def listen(gates: Any, metrics: Any, gains: Any) -> list[Any]:
        measured.update(values=metrics, gains=gains)
        return []

    monkeypatch.setattr("smn_cli.commands.eval.check_metrics", hear)
    monkeypatch.setattr("smn_cli.terminal.eval_results.check_gates", listen)
    alone = ("eval", road.labeled, "--arch", RESNET, "--weights", road.weights, "--size", 32)
    outcome = run_cli(*(alone if is_alone else words), *more, "--fail-under", "knn.top1=0", "--repeats", 1)
    assert outcome.code == 0, outcome.err
    early, exact = announced
    assert sorted(exact.values) == sorted(measured["values"])
    assert sorted(exact.gains) == sorted(measured["gains"])
    assert {name for name in exact.values if "top1@" not in name.partition("@label:")[0]} <= set(early.values)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (("--junit", "j.xml"), "--junit j.xml has a test case a gate: add --fail-under or --min-gain"),
        (("--summary", "no/s.md"), "--summary no/s.md: its folder does not exist"),
        (
            ("--junit", ".", "--fail-under", "knn.top1=0"),
            "--junit .: its folder does not exist, or it is a folder itself",
        ),
        (("--report", "r.pdf"), "--report r.pdf: expected a name ending in .html"),
    ],
)
def test_a_file_that_cannot_be_written_is_wrong_usage_before_any_work(
    more: tuple[str, ...], told: str, words: tuple[object, ...], run_cli: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("smn_cli.commands.eval.open_networks", None)
    refused = run_cli(*words, *more)
    assert (refused.code, told in refused.err) == (2, True), refused.err
