"""The JUnit file has a test case a gate, counts them, and holds nothing that XML cannot."""

from datetime import datetime
from pathlib import Path
from xml.etree import ElementTree

from smn_cli.reports.junit import junit_xml
from tests.reports.small_evaluations import evaluation


def test_a_gate_is_a_test_case_and_one_that_failed_tells_found_and_expected(tmp_path: Path) -> None:
    root = ElementTree.fromstring(junit_xml(evaluation(tmp_path, bounds=(0.5, 0.95))))
    [suite] = root.findall("testsuite")
    assert {name: suite.get(name) for name in ("tests", "failures", "errors", "skipped", "time")} == {
        "tests": "2", "failures": "1", "errors": "0", "skipped": "0", "time": "1.500",
    }  # fmt: skip
    passed, failed = suite.findall("testcase")
    assert (passed.get("name"), passed.get("classname"), list(passed)) == ("knn.top1>=0.5", "smn.eval", [])
    assert failed.get("name") == "knn.top1>=0.95"
    [failure] = failed
    assert failure.tag == "failure"
    assert failure.get("message") == failure.text == "knn.top1 is 0.9000, expected 0.95 or more"
    assert "knn.top1 is 0.9000, expected 0.5 or more" in (suite.findtext("system-out") or "")


def test_children_and_attributes_are_those_of_the_schemas_in_use(tmp_path: Path) -> None:
    text = junit_xml(evaluation(tmp_path, bounds=(0.5,)), now=datetime(2025, 1, 2, 3, 4, 5))
    [suite] = ElementTree.fromstring(text)
    assert [child.tag for child in suite] == ["properties", "testcase", "system-out", "system-err"]
    assert (suite.get("timestamp"), suite.get("hostname")) == ("2025-01-02T03:04:05", "localhost")
    counts = ["tests", "failures", "errors", "skipped"]
    assert suite.keys() == ["id", "name", "package", *counts, "time", "timestamp", "hostname"]


def test_names_from_files_cannot_break_the_xml(tmp_path: Path) -> None:
    facts = {"labels": 'a\x00b\x1b[31m <x> & "q" \udcff'}
    [suite] = ElementTree.fromstring(junit_xml(evaluation(tmp_path, bounds=(0.5,), facts=facts)))
    values = {each.get("name"): each.get("value") for each in suite.findall("properties/property")}
    assert values["labels"] == r'a\x00b\x1b[31m <x> & "q" \udcff'
    assert values["arch"] == "net_<1>"
