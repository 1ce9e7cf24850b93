"""Settings from a file and from the environment: below what is typed, told aloud, and checked by name."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import RESNET, Outcome

Run = Callable[..., Outcome]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def told(outcome: Outcome) -> dict[str, tuple[str, str]]:
    """Value and source by name, of the table."""
    lines = outcome.err.partition("settings, and where they come from:\n")[2].splitlines()
    rows = [line.split(maxsplit=2) for line in lines if line.startswith("  ")]
    return {name: (value, source) for name, value, source in rows}


@pytest.mark.parametrize(
    ("name", "table"), [("smn.toml", "[adapt]"), ("pyproject.toml", "[tool.smn.adapt]"), ("own.toml", "[adapt]")]
)
def test_what_is_typed_comes_before_the_environment_and_that_before_the_file(
    here: Path, run_cli: Run, monkeypatch: pytest.MonkeyPatch, name: str, table: str
) -> None:
    (here / name).write_text(f'{table}\narch = "{RESNET}"\nbatch-size = 8\nsteps = 3\nsize = 48\n')
    if name == "own.toml":
        monkeypatch.setenv("SMN_CONFIG", name)
    monkeypatch.setenv("SMN_ADAPT_STEPS", "4")
    monkeypatch.setenv("SMN_ADAPT_BATCH_SIZE", "16")
    outcome = run_cli("adapt", here / "nothing", "--batch-size", 32)
    assert told(outcome) == {
        "images": (str(here / "nothing"), "command line"),
        "--arch": (RESNET, name),
        "--size": ("48", name),
        "--steps": ("4", "$SMN_ADAPT_STEPS"),
        "--batch-size": ("32", "command line"),
    }
    assert (outcome.code, "nothing does not exist" in outcome.err) == (5, True)


def test_nothing_is_told_where_all_was_typed(here: Path, run_cli: Run) -> None:
    outcome = run_cli("adapt", here / "nothing", "--arch", RESNET)
    assert (outcome.code, told(outcome)) == (5, {})


def test_a_run_that_goes_on_keeps_its_settings(here: Path, run_cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "smn.toml").write_text('[adapt]\nsteps = 3\nout = "mine"\n')
    monkeypatch.setenv("SMN_ADAPT_SIZE", "48")
    outcome = run_cli("adapt", "--resume")
    assert told(outcome) == {
        "--out": ("mine", "smn.toml"),
        "--steps": ("3", "smn.toml, not used because --resume was typed"),
        "--size": ("48", "$SMN_ADAPT_SIZE, not used because --resume was typed"),
        "--resume": ("True", "command line"),
    }
    assert "mine is not a run folder" in outcome.err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[adapt]\nstepps = 3", "smn.toml: [adapt] has no setting stepps; is it steps?"),
        ("[adpat]\nsteps = 3", "smn.toml: there is no command [adpat]; is it adapt?"),
        ("adapt = 3", "smn.toml: adapt is no table"),
        ("[adapt", "smn.toml cannot be read as TOML"),
        ('[adapt]\nsteps = "x"', "Invalid value for '--steps'"),
        ("[adapt]\nsteps = -1", "--steps"),
        ("[adapt]\nsteps = 3.7", "Invalid value for '--steps'"),
        ("[adapt]\nsteps = [3]", "smn.toml: [adapt] steps is a list: expected one value"),
        ("[adapt]\nsteps = {a = 1}", "smn.toml: [adapt] steps is {'a': 1}: expected text, a number"),
        ("[adapt]\nweights = 1979-05-27", "smn.toml: [adapt] weights is 1979-05-27: expected text, a number"),
        ("[adapt]\nteacher = [['a']]", "smn.toml: [adapt] teacher is [['a']]: expected text, a number"),
        ('[adapt]\nval = "a\\u0000"', "smn.toml: [adapt] val is a\\x00: expected text, a number"),
        ("x = " + "[" * 5000, "smn.toml cannot be read as TOML"),
    ],
)
def test_what_is_wrong_in_a_file_is_wrong_usage(here: Path, run_cli: Run, text: str, words: str) -> None:
    (here / "smn.toml").write_text(text)
    outcome = run_cli("adapt", here, "--arch", RESNET)
    assert (outcome.code, words in outcome.err) == (2, True), outcome.err


def test_values_are_taken_as_if_they_had_been_typed(here: Path, run_cli: Run) -> None:
    """A path that looks like a number is one."""
    (here / "smn.toml").write_text("[adapt]\nweights = 5\nresume = false\nlr-scores = 1e2\n")
    outcome = run_cli("adapt", here / "nothing", "--arch", RESNET)
    assert told(outcome).keys() == {"images", "--arch", "--weights", "--resume", "--lr-scores"}
    assert (told(outcome)["--lr-scores"][0], outcome.code) == ("100.0", 5)


@pytest.mark.parametrize("text", ["tool = 3", "[[tool]]\na = 1"])
def test_a_project_file_without_tools_is_left_alone(here: Path, run_cli: Run, text: str) -> None:
    (here / "pyproject.toml").write_text(text)
    assert run_cli("adapt", here / "nothing", "--arch", RESNET).code == 5


@pytest.mark.parametrize("text", ["[tool]\nsmn = 3", "[[tool.smn]]\nadapt = 1"])
def test_a_table_that_is_none_in_a_project_file(here: Path, run_cli: Run, text: str) -> None:
    (here / "pyproject.toml").write_text(text)
    outcome = run_cli("adapt", here / "nothing", "--arch", RESNET)
    assert (outcome.code, "tool.smn is no table" in outcome.err) == (2, True), outcome.err


def test_a_project_file_of_other_tools_is_left_alone(here: Path, run_cli: Run) -> None:
    for text in ("[tool.ruff]\nline-length = 3", "broken ["):
        (here / "pyproject.toml").write_text(text)
        assert run_cli("adapt", here / "nothing", "--arch", RESNET).code == 5


UNUSED = "smn.toml, not used because {} was typed"


@pytest.mark.parametrize(
    ("settings", "words", "unused"),
    [
        ("[verify]\nweights = 'b'", "verify x --quick", {"--weights": "--quick"}),
        ("[verify]\nquick = true", "verify x --checkpoint c", {"--quick": "--checkpoint"}),
        (
            "[apply]\nreadout = true",
            "apply x --drop-classifier --out c.safetensors",
            {"--readout": "--drop-classifier"},
        ),
        ("[eval]\nadapter = ['x']", "eval nothing --run r", {"--adapter": "--run"}),
        ("[embed]\nrun = 'r'", "embed nothing --adapter x --out f.npy", {"--run": "--adapter"}),
        ("[export]\nstatic = true", "export x y --onnx served", {"--static": "files"}),
        ("[adapt]\nresume = true", "adapt nothing --arch resnet18", {"--resume": "images"}),
        ("[cascade]\nrun = 'r'\nexperts = 2", "cascade --resume", {"--run": "--resume", "--experts": "--resume"}),
        ("[adapt]\nsteps = 3", "adapt nothing --arch resnet18 --epochs 1", {"--steps": "--epochs"}),
        (
            "[adapt]\nlabels = 'folders'\nlabel-fraction = 0.5",
            "adapt nothing --arch resnet18 --recipe swav",
            {"--labels": "--recipe", "--label-fraction": "--recipe"},
        ),
        (
            "[adapt]\nmask-kind = 'topk'\ndensity = 0.9\ndensity-start = 0.95",
            "adapt nothing --arch resnet18 --mask-kind threshold",
            {"--density": "--mask-kind", "--density-start": "--mask-kind"},
        ),
        (
            "[adapt]\nmask-kind = 'topk'\ndensity = 0.9",
            "adapt nothing --arch resnet18 --train norm",
            {"--density": "--train", "--mask-kind": "--train"},
        ),
        (
            "[adapt]\ndensity-start = 0.92",
            "adapt nothing --arch resnet18 --mask-kind topk --density 0.95",
            {"--density-start": "--density"},
        ),
        (
            "[adapt]\nscore-init = 'constant'",
            "adapt nothing --arch resnet18 --mask-kind topk --density 0.9",
            {"--score-init": "--mask-kind"},
        ),
        ("[plan]\ntrain = 'full'", "plan nothing --arch resnet18 --mask-only random:0.5", {"--train": "--mask-only"}),
        ("[adapt]\nteacher = ['last']", "adapt nothing --arch resnet18 --recipe swav", {"--teacher": "--recipe"}),
        ("[adapt]\ntrain = 'head'", "adapt nothing --arch resnet18 --recipe default", {"--train": "--recipe"}),
    ],
)
def test_a_setting_gives_way_to_what_was_typed_where_the_two_exclude_each_other(
    here: Path, run_cli: Run, settings: str, words: str, unused: dict[str, str]
) -> None:
    (here / "smn.toml").write_text(settings)
    outcome = run_cli(*words.split())
    assert {name: source for name, (_, source) in told(outcome).items() if "not used" in source} == {
        name: UNUSED.format(cause) for name, cause in unused.items()
    }
    assert outcome.code in (5, 6), outcome.err  # what was named is not there, which is all that is left to complain of


def test_the_file_gives_way_to_the_environment(here: Path, run_cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "smn.toml").write_text("[adapt]\nsteps = 3")
    monkeypatch.setenv("SMN_ADAPT_EPOCHS", "2")
    outcome = run_cli("adapt", "nothing", "--arch", RESNET)
    assert outcome.code == 5
    assert told(outcome)["--steps"] == ("3", "smn.toml, not used because --epochs comes from $SMN_ADAPT_EPOCHS")


def test_a_setting_gives_way_where_only_the_plan_of_the_run_shows_what_clashes(
    here: Path, run_cli: Run, image_folder: Path, weights_file: Callable[[str], Path]
) -> None:
    """Whether prototypes mean anything hangs on who teaches, and that, without a word on it, on the network."""
    (here / "smn.toml").write_text("[adapt]\nprototypes = 8\nsteps = 1\nbatch-size = 4\nsize = 32\ndevice = 'cpu'")
    words = ("--arch", RESNET, "--weights", weights_file(RESNET), "--teacher", "last", "--out", "made")
    outcome = run_cli("adapt", image_folder, *words)
    assert outcome.code == 0, outcome.err
    told_last = outcome.err.rpartition("settings, and where they come from:\n")[2].splitlines()[0]
    assert told_last.split(maxsplit=2) == ["--prototypes", "8", UNUSED.format("--teacher")]
    assert json.loads((here / "made" / "config.json").read_text())["plan"]["num_prototypes"] == 0


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ("", "verify x --quick --weights b"),
        ("[verify]\nquick = true\nweights = 'b'", "verify x"),
        ("[adapt]\nsteps = 3\nepochs = 1", "adapt nothing --arch resnet18"),
    ],
)
def test_what_stands_alike_is_refused_as_before(here: Path, run_cli: Run, settings: str, words: str) -> None:
    (here / "smn.toml").write_text(settings)
    outcome = run_cli(*words.split())
    assert (outcome.code, "not used" in outcome.err) == (2, False), outcome.err


def test_a_gate_never_gives_way(here: Path, run_cli: Run) -> None:
    """Else a job would pass that was to be stopped."""
    (here / "smn.toml").write_text("[eval]\nmin-gain = ['knn.top1=0.0']")
    outcome = run_cli("eval", "nothing", "--arch", RESNET)
    assert (outcome.code, "--min-gain knn.top1=0" in outcome.err) == (2, True), outcome.err
