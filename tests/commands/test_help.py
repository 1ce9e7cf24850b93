"""Help answers at once and for every command; the version too."""

import subprocess
import sys
from collections.abc import Callable

import pytest

import smn_cli
from tests.conftest import Outcome

COMMANDS = ["adapt", "plan", "eval", "embed", "pack", "apply", "inspect", "verify", "data", "demo"]


def test_the_command_line_is_ready_without_any_heavy_library() -> None:
    code = (
        "import sys, smn_cli.cli; "
        "print([name for name in ('torch', 'torchvision', 'timm', 'sklearn', 'numpy', 'PIL') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize("words", [["--help"], ["-h"], []])
def test_help_names_every_command_and_the_exit_codes(run_cli: Callable[..., Outcome], words: list[str]) -> None:
    outcome = run_cli(*words)
    assert outcome.code == 0
    assert all(f"\n  {command} " in outcome.out for command in COMMANDS)
    assert "130 interrupted" in outcome.out
    assert outcome.err == ""


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_its_json_option(run_cli: Callable[..., Outcome], command: str) -> None:
    outcome = run_cli(command, "--help")
    assert outcome.code == 0
    assert f"smn {command}" in outcome.out or f"{command} [OPTIONS]" in outcome.out
    assert "--json" in outcome.out


def test_the_version_is_that_of_the_package(run_cli: Callable[..., Outcome]) -> None:
    assert run_cli("--version").out == f"smn {smn_cli.__version__}\n"


def test_python_m_is_the_same_command() -> None:
    found = subprocess.run([sys.executable, "-m", "smn_cli", "--version"], capture_output=True, text=True, check=True)
    assert found.stdout == f"smn {smn_cli.__version__}\n"
