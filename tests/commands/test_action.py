"""The GitHub Action and the examples of CI run as printed, by a runner that knows as much of a job as they use."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

from tests.commands.conftest import Road
from tests.conftest import Outcome

pytestmark = pytest.mark.skipif(not shutil.which("bash"), reason="the action's script is for bash")

ROOT = Path(__file__).parent.parent.parent
ACTION: dict[str, Any] = yaml.safe_load((ROOT / "action.yml").read_text())
ELSEWHERE = ("actions/checkout@", "actions/setup-python@", "actions/upload-artifact@")


class Job:
    """A job's folder: labeled images, an adapter, its base; and the files that GitHub gives to every step."""

    def __init__(self, folder: Path, road: Road) -> None:
        self.folder = folder / "work"
        self.summary, self.output = folder / "summary.md", folder / "output.txt"
        shutil.copytree(road.labeled, self.folder / "labeled")
        shutil.copy(road.adapter, self.folder / "adapter.safetensors")
        shutil.copy(road.weights, self.folder / "base.safetensors")
        self.summary.touch()
        self.output.touch()

    def run(self, step: dict[str, Any]) -> Outcome:
        """A step that is a script."""
        ours = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "GITHUB_ACTION_PATH": str(ROOT),
            "GITHUB_STEP_SUMMARY": str(self.summary),
            "GITHUB_OUTPUT": str(self.output),
        }
        done = subprocess.run(
            ["bash", "-e", "-c", step["run"]],
            cwd=self.folder,
            env={**os.environ, **ours, **step.get("env", {})},
            capture_output=True,
            text=True,
            check=False,
        )
        return Outcome(done.returncode, done.stdout, done.stderr)

    def use(self, **given: str) -> Outcome:
        """The action with these inputs; smn is installed here already."""
        inputs = {name: declared.get("default") for name, declared in ACTION["inputs"].items()} | given
        assert inputs.keys() == ACTION["inputs"].keys()
        assert None not in inputs.values()
        install, evaluate = ACTION["runs"]["steps"]
        assert install["if"] == "inputs.install != 'none'"
        return self.run({**evaluate, "env": {name: filled(text, inputs) for name, text in evaluate["env"].items()}})

    @property
    def outputs(self) -> dict[str, str]:
        """As a later step sees them."""
        told = dict(line.split("=", 1) for line in self.output.read_text().splitlines())
        values = {name: declared["value"] for name, declared in ACTION["outputs"].items()}
        assert {filled(value, {}, told) for value in values.values()} >= set(told.values())
        return told


def filled(text: str, inputs: dict[str, str], outputs: dict[str, str] | None = None) -> str:
    """A text with its ${{ }} replaced."""
    text = re.sub(r"\$\{\{ inputs\.([a-z-]+) \}\}", lambda found: inputs[found.group(1)], text)
    text = re.sub(
        r"\$\{\{ steps\.eval\.outputs\.([a-z-]+) \}\}", lambda found: (outputs or {}).get(found.group(1), ""), text
    )
    assert "${{" not in text
    return text


@pytest.fixture
def job(road: Road, tmp_path: Path) -> Job:
    return Job(tmp_path, road)


@pytest.mark.slow
def test_the_action_passes_with_its_gates_and_leaves_everything_for_later_steps(job: Job) -> None:
    gates = {"fail-under": "knn.top1=0\n  linear.top1=0  \n", "min-gain": "knn.top1=-1"}
    done = job.use(
        data="labeled", adapter="adapter.safetensors", weights="base.safetensors", scores="knn linear", **gates,
        arguments="--max-test 12 --no-controls",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert job.outputs["exit-code"] == "0"
    assert job.outputs["passed"] == "true"
    assert job.outputs["verdict"] in ("better", "same", "worse")
    assert "; 3 of 3 gates passed\n" in job.summary.read_text()
    assert "- test images: 12\n" in job.summary.read_text()
    cases = ElementTree.parse(job.folder / "smn-junit.xml").findall("testsuite/testcase")
    assert [case.get("name") for case in cases] == ["knn.top1>=0", "linear.top1>=0", "gain(knn.top1)>=-1"]
    made = {path.name for path in job.folder.iterdir()}
    assert made == {"labeled", "adapter.safetensors", "base.safetensors"} | {
        "smn-eval.json", "smn-junit.xml", "smn-report.html",
    }  # fmt: skip


@pytest.mark.slow
def test_a_failed_gate_fails_the_step_and_its_outputs_tell_so(job: Job) -> None:
    done = job.use(
        data="labeled", adapter="adapter.safetensors", weights="base.safetensors", report="", arguments="--no-controls",
        **{"fail-under": "knn.top1=1.01"},
    )  # fmt: skip
    assert done.code == 3
    assert (job.outputs["exit-code"], job.outputs["passed"]) == ("3", "false")
    assert "FAILED" in job.summary.read_text()
    [failure] = ElementTree.parse(job.folder / "smn-junit.xml").findall("testsuite/testcase/failure")
    assert "expected 1.01 or more" in str(failure.get("message"))
    assert not (job.folder / "smn-report.html").exists()


def test_a_misspelt_gate_is_wrong_usage_and_an_older_result_is_not_told_for_a_new_one(job: Job) -> None:
    (job.folder / "smn-eval.json").write_text('{"passed": true, "verdict": "better"}')
    done = job.use(data="labeled", adapter="adapter.safetensors", **{"fail-under": "knn.topp=0.7"})
    assert done.code == 2
    assert done.err.splitlines()[-1].startswith("smn: --fail-under knn.topp=0.7: ")
    assert job.outputs == {"exit-code": "2"}
    assert job.summary.read_text() == ""


def test_inputs_are_words_and_never_commands(job: Job) -> None:
    done = job.use(
        data="$(touch a)", adapter="; touch b", arguments="`touch c` *", **{"fail-under": "knn.top1=$(touch d)"}
    )
    assert done.code == 2
    assert " * " in done.err  # among the words that smn cannot use, and not the files here
    assert not {"a", "b", "c", "d"} & {path.name for path in job.folder.iterdir()}


def test_what_is_installed_is_what_lies_beside_the_action() -> None:
    install, evaluate = ACTION["runs"]["steps"]
    assert install["run"].endswith('pip install "${SMN_INSTALL:-$GITHUB_ACTION_PATH}"')
    assert "${{" not in install["run"] + evaluate["run"]  # what an input holds would be run


@pytest.mark.slow
def test_the_example_of_a_job_runs_as_printed(job: Job) -> None:
    steps = yaml.safe_load((ROOT / "examples" / "ci-gate.yml").read_text())["jobs"]["gate"]["steps"]
    ours = [step for step in steps if not step.get("uses", "").startswith(ELSEWHERE)]
    used = {key: str(value) for key, value in ours[0]["with"].items()}
    assert ours[0]["uses"].startswith("OWNER/smn@")
    done = job.use(**used)
    assert done.code in (0, 3), done.err  # what a network of chance scores is not the example's promise
    assert "2 gates passed" in job.summary.read_text()
    verified = job.run(ours[1])
    assert verified.code == 0, verified.err
    assert len(ours) == 2
    assert steps[-1]["with"]["path"] == "smn-*"


@pytest.mark.slow
def test_the_readme_s_command_and_step_run_as_printed(job: Job) -> None:
    usage = (ROOT / "docs" / "usage.md").read_text().partition("In CI, `smn eval` decides:")[2]
    command = usage.partition("```sh\n")[2].partition("```")[0]
    assert f"```sh\n{command}```" in (ROOT / "README.md").read_text()
    done = job.run({"run": command})
    assert done.code in (0, 3), done.err
    assert {"eval.json", "junit.xml", "summary.md", "report.html"} <= {path.name for path in job.folder.iterdir()}
    [step] = yaml.safe_load(usage.partition("```yaml\n")[2].partition("```")[0])
    [printed] = [
        each for each in yaml.safe_load((ROOT / "examples" / "ci-gate.yml").read_text())["jobs"]["gate"]["steps"]
        if each.get("uses") == step["uses"]
    ]  # fmt: skip
    assert step["with"] == printed["with"]  # which the test above runs
