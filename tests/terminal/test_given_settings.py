"""Settings from a file and from the environment: below what is typed, told aloud, and checked by name."""

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
    assert told(outcome) == {"--out": ("mine", "smn.toml"), "--resume": ("True", "command line")}
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
    ],
)
def test_what_is_wrong_in_a_file_is_wrong_usage(here: Path, run_cli: Run, text: str, words: str) -> None:
    (here / "smn.toml").write_text(text)
    outcome = run_cli("adapt", here, "--arch", RESNET)
    assert (outcome.code, words in outcome.err) == (2, True), outcome.err


def test_a_project_file_of_other_tools_is_left_alone(here: Path, run_cli: Run) -> None:
    for text in ("[tool.ruff]\nline-length = 3", "broken ["):
        (here / "pyproject.toml").write_text(text)
        assert run_cli("adapt", here / "nothing", "--arch", RESNET).code == 5
