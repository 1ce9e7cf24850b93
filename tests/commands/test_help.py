"""Help answers at once and for every command; the version too."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import typer.main

import smn_cli
from smn_cli.adapters.codecs import CODECS
from smn_cli.adapters.combining import HOW
from smn_cli.cli import app
from smn_cli.recipes import RECIPES
from smn_cli.schemas.readout_kinds import LINEAR_KINDS
from smn_cli.terminal.arch_names import complete_arch
from smn_cli.terminal.common_options import COMMON
from smn_cli.terminal.help_page import split_examples
from tests.conftest import Outcome

COMMANDS = [
    "adapt", "plan", "eval", "embed", "pack", "apply", "inspect", "verify", "diff", "merge", "cascade", "data", "demo",
]  # fmt: skip


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


def command_of(name: str) -> Any:
    """What Typer made of a command."""
    group: Any = typer.main.get_command(app)
    return group.commands[name]


@pytest.mark.parametrize("command", COMMANDS)
def test_the_examples_of_a_page_are_understood_by_its_command(run_cli: Callable[..., Outcome], command: str) -> None:
    parser = command_of(command)
    _, examples = split_examples(parser.help)
    assert len(examples) == 2
    assert run_cli(command, "--help").out.endswith("Examples:\n" + "".join(f"  {line}\n" for line in examples))
    for line in examples:
        smn, name, *words = line.split()
        assert (smn, name) == ("smn", command)
        values = parser.make_context(name, words).params
        for parameter in parser.params:
            if (parameter.metavar or "").startswith("<"):
                value = values[parameter.name]
                given = value if isinstance(value, (list, tuple)) else [value]
                assert {*given} <= {None, *parameter.metavar.strip("<>").split("|")}


def titles_of(page: str) -> list[str]:
    """Of its sections."""
    return [line.removesuffix(":") for line in page.splitlines() if line.endswith(":") and not line.startswith(" ")]


def names_on(page: str) -> list[str]:
    """Long names of options, in the order of the page."""
    return re.findall(r"^  (?:-h, )?(--[a-z-]+)", page.partition("\nArguments:\n")[2], re.MULTILINE)


@pytest.mark.parametrize("command", list(COMMON))
def test_a_short_page_fits_a_screen_and_the_whole_one_says_all(
    run_cli: Callable[..., Outcome], command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    short, whole = (run_cli(command, word).out for word in ("--help", "--help-all"))
    assert run_cli(command, "-h").out == short
    assert short.count("\n") <= 46  # of a screen of 50, with room for the prompts before and after
    assert max(map(len, short.splitlines())) <= 80
    assert titles_of(short) == ["Arguments", "Common options", "Examples"]
    common = [f"--{name.replace('_', '-')}" for name in COMMON[command]]
    assert names_on(short) == [*common, "--help", "--help-all"]
    known = [option.opts[0] for option in command_of(command).params if option.param_type_name == "option"]
    assert sorted(names_on(whole)) == sorted([*known, "--help", "--help-all"])
    assert f"Show all {len(known) + 1} arguments and options." in " ".join(short.split())


def test_every_command_takes_help_all_and_its_only_page_does_not_name_it(run_cli: Callable[..., Outcome]) -> None:
    page = run_cli("pack", "--help").out
    assert "--help-all" not in page
    assert run_cli("pack", "--help-all").out == page


def test_a_wide_terminal_is_used_up_to_100_columns(
    run_cli: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    assert 80 < max(map(len, run_cli("eval", "--help-all").out.splitlines())) <= 100


@pytest.mark.parametrize(
    ("command", "titles"),
    [
        ("adapt", ["Network", "Data", "Method", "Mask", "Run", "Output"]),
        ("plan", ["Network", "Data", "Method", "Mask", "Run", "Output"]),
        ("eval", ["Network", "Data", "Scores", "Gates", "Run", "Output"]),
        ("embed", ["Network", "Data", "Run", "Output"]),
        ("cascade", ["Network", "Method", "Run", "Output"]),
    ],
)
def test_the_options_of_a_long_page_stand_in_titled_groups(
    run_cli: Callable[..., Outcome], command: str, titles: list[str]
) -> None:
    page = run_cli(command, "--help-all").out
    assert titles_of(page) == ["Arguments", *titles, "Other", "Examples"]
    assert page.partition("\nOther:\n")[2].strip().startswith("-h, --help")  # every option of its own has a group


@pytest.mark.parametrize(
    ("command", "option", "choices"),
    [
        ("adapt", "--recipe", list(RECIPES)),
        ("adapt", "--train", ["mask", "norm", "full", "head"]),
        ("plan", "--score-init", ["constant", "magnitude", "kaiming"]),
        ("eval", "--precision", ["auto", "fp32", "bf16"]),
        ("cascade", "--mode", ["conditional", "unconditional"]),
        ("pack", "--codec", ["auto", *CODECS]),
        ("pack", "--readout", list(LINEAR_KINDS)),
        ("merge", "--how", list(HOW)),
    ],
)
def test_choices_are_listed_and_completed(
    run_cli: Callable[..., Outcome], command: str, option: str, choices: list[str]
) -> None:
    assert f"{option} <{'|'.join(choices)}>" in " ".join(run_cli(command, "--help-all").out.split())
    asked = {"_SMN_COMPLETE": "complete_bash", "COMP_WORDS": f"smn {command} {option} ", "COMP_CWORD": "3"}
    words = [sys.executable, "-m", "smn_cli"]
    found = subprocess.run(words, capture_output=True, text=True, check=True, env={**os.environ, **asked})
    assert found.stdout.split() == choices


def test_pages_are_plain_and_cut_nothing_off(run_cli: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    pages = [run_cli("--help").out, *(run_cli(command, "--help-all").out for command in COMMANDS)]
    assert not [page for page in pages if "env var" in page or "list[" in page]
    assert "..." not in pages[0].partition("Commands:")[2]
    assert pages[1].startswith("Usage: smn adapt [OPTIONS] [IMAGES...]\n")
    assert pages[1 + COMMANDS.index("verify")].startswith("Usage: smn verify [OPTIONS] FILE\n")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("smn eval d --arch test_resn", ["test_resnet"]),
        ("smn embed i --arch test_resn", ["test_resnet"]),
        ("smn adapt --teacher stag", ["stages"]),
        ("smn adapt --witness test_resn", ["test_resnet"]),
        ("smn data eur", ["eurosat"]),
        ("smn adapt --help-", ["--help-all"]),
        ("smn adapt i --weights ", []),  # the shell itself completes files where smn knows nothing
    ],
)
def test_names_are_completed(words: str, expected: list[str]) -> None:
    complete_arch("")  # timm's names lie in a file from now on; else each would load timm for them
    asked = {"_SMN_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split(" ")) - 1)}
    found = subprocess.run(
        [sys.executable, "-m", "smn_cli"], capture_output=True, text=True, check=True, env={**os.environ, **asked}
    )
    assert found.stdout.split() == expected


def test_a_sentence_with_an_apostrophe_reaches_zsh_whole() -> None:
    asked = {"_SMN_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": "smn verify x --weig"}
    found = subprocess.run(
        [sys.executable, "-m", "smn_cli"], capture_output=True, text=True, check=True, env={**os.environ, **asked}
    )
    assert "instead of timm\N{RIGHT SINGLE QUOTATION MARK}s hub" in found.stdout


def test_the_version_is_that_of_the_package(run_cli: Callable[..., Outcome]) -> None:
    assert run_cli("--version").out == f"smn {smn_cli.__version__}\n"


@pytest.mark.parametrize(
    ("typed", "name"), [("bin/smn", "smn"), ("bin/smn-cli", "smn-cli"), ("smn-cli.exe", "smn-cli"), ("x.py", "smn")]
)
def test_both_commands_say_their_own_name(
    typed: str, name: str, run_cli: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [typed])
    assert run_cli("pack", "--help").out.startswith(f"Usage: {name} pack [OPTIONS]")


def test_python_m_is_the_same_command() -> None:
    found = subprocess.run([sys.executable, "-m", "smn_cli", "--version"], capture_output=True, text=True, check=True)
    assert found.stdout == f"smn {smn_cli.__version__}\n"
