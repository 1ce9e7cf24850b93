"""A new option is one field: it stands on the help page, is completed, is checked, and reaches its command."""

from dataclasses import dataclass
from typing import Literal

import pytest
import typer
import typer.main

from smn_cli.config.option import check_options, option
from smn_cli.errors import UsageError
from smn_cli.terminal.help_page import MIN_GROUPED, HelpPage
from smn_cli.terminal.option_parameters import takes_options


@dataclass(frozen=True)
class Brewing:
    """A dataclass that nothing else knows."""

    leaf_kind: Literal["green", "black"] = option("green", "Which leaf.", "Mask")
    sugar: tuple[float, ...] = option((), "Spoons.", "Method", minimum=0, metavar="SPOONS")
    milk: bool = option(False, "With milk.", "Method")
    hot: bool | None = option(None, "Served hot.", "Run")
    minutes: int | None = option(None, "How long.", "Method", minimum=1, below=9)

    def __post_init__(self) -> None:
        check_options(self)


made: list[Brewing] = []


@takes_options
def brew(*, pot: str = "blue", options: Brewing, others: int = 0) -> None:
    """Brew tea.

    Examples:
        smn brew --leaf-kind black --minutes 3 --sugar 1 --sugar 2 --milk --no-hot --pot red --others 3 --and-more
    """
    made.append(options)


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> typer.Typer:
    """The command alone, with groups however few its options are."""
    monkeypatch.setattr("smn_cli.terminal.help_page.MIN_GROUPED", 1)
    app = typer.Typer(rich_markup_mode=None, add_completion=False)
    app.command("brew", cls=HelpPage)(brew)
    made.clear()
    return app


def test_it_stands_on_the_page_in_its_group_with_choices_range_and_default(
    app: typer.Typer, capsys: pytest.CaptureFixture[str]
) -> None:
    app(["--help"], standalone_mode=False)
    page = capsys.readouterr().out
    groups = {part.partition(":\n")[0]: " ".join(part.split()) for part in page.split("\n\n")}
    assert list(groups)[2:] == ["Method", "Mask", "Run", "Other", "Examples"]
    assert groups["Mask"] == "Mask: --leaf-kind <green|black> Which leaf. [default: green]"
    assert "--sugar SPOONS Spoons. [0 or more, finite]" in groups["Method"]
    told = groups["Method"].replace("INTEGER", "<int>")  # as Typer 0.26 writes it
    assert "--minutes <int> How long. [1 or more, below 9]" in told
    assert "--hot / --no-hot Served hot." in groups["Run"]
    assert "--pot" in groups["Other"]
    assert page.endswith("--no-hot --pot red --others 3 --and-more\n")  # on one line, however long it is


def test_it_reaches_the_command(app: typer.Typer) -> None:
    app([], standalone_mode=False)
    app(
        ["--leaf-kind", "black", "--minutes", "3", "--sugar", "1", "--sugar", "2", "--milk", "--no-hot"],
        standalone_mode=False,
    )
    assert made == [Brewing(), Brewing("black", (1.0, 2.0), True, False, 3)]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--leaf-kind red", "`leaf_kind` is red: expected green or black"),
        ("--minutes 9", "`minutes` is 9: expected 1 or more, below 9"),
        ("--sugar 1 --sugar -1", "`sugar` is -1.0: expected 0 or more, finite"),
    ],
)
def test_it_is_checked_before_the_command_starts(app: typer.Typer, words: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        app(words.split(), standalone_mode=False)
    assert made == []


def test_few_options_need_no_groups(capsys: pytest.CaptureFixture[str]) -> None:
    app = typer.Typer(rich_markup_mode=None, add_completion=False)
    app.command("brew", cls=HelpPage)(brew)
    assert len(typer.main.get_command(app).params) < MIN_GROUPED
    app(["--help"], standalone_mode=False)
    page = capsys.readouterr().out
    assert "\nOptions:\n" in page
    assert "\nMask:\n" not in page
