"""The help page of a command: the common options or all in titled groups, and the examples of its docstring."""

from copy import copy
from typing import Any, get_args

import typer
from typer.core import TyperCommand, TyperGroup

from smn_cli.config.option import Group
from smn_cli.terminal.common_options import COMMON

MIN_GROUPED = 10
"""Options from which on a page has groups; fewer are read at one look."""
_REST, _COMMON = "Other", "Common options"
_IS_WHOLE = "smn.whole_page"
"""In a context's `meta` where all options are asked for."""


class StartPage(TyperGroup):
    """The page of smn itself, without the environment's variable at every option."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write options, then commands."""
        _leave_variables_out(self.get_params(ctx))
        super().format_options(ctx, formatter)


class HelpPage(TyperCommand):
    """A command whose page stays plain text, which Rich would cut long names and square brackets out of."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """The arguments as they are called on the page, in square brackets if they may be left out."""
        arguments = [each for each in self.get_params(ctx) if each.param_type_name == "argument"]
        return ["[OPTIONS]", *(_name(each) if each.required else f"[{_name(each)}]" for each in arguments)]

    def get_params(self, ctx: Any) -> list[Any]:
        """Its parameters, `--help`, and `--help-all`, which every page knows and the short ones name."""
        parameters = super().get_params(ctx)
        return [*parameters, *(self._help_all(each) for each in parameters if each.name == "help")]

    def _help_all(self, short: Any) -> Any:
        """Made of `--help`, since what an option's class takes differs between releases of Typer."""
        made = copy(short)
        made.name, made.opts, made.secondary_opts = "help_all", ["--help-all"], []
        made.help = f"Show all {len(self.params)} arguments and options."
        made.hidden, made.callback = self.name not in COMMON, _show_whole_page
        return made

    def format_help_text(self, ctx: Any, formatter: Any) -> None:
        """Write what the command does; examples come last."""
        text, _ = split_examples(self.help or "")
        formatter.write_paragraph()
        with formatter.indentation():
            formatter.write_text(text)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write arguments, then the common options, the most used first, or all by group."""
        parameters = self.get_params(ctx)
        _leave_variables_out(parameters)
        titled = {"Arguments": [each for each in parameters if each.param_type_name == "argument"]}
        is_short = self.name in COMMON and not ctx.meta.get(_IS_WHOLE)
        options = _common(parameters, COMMON[str(self.name)]) if is_short else grouped(parameters)
        for title, listed in {**titled, **options}.items():
            records = [record for each in listed if (record := _record(each, ctx)) is not None]
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)

    def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:
        """What may stand here; zsh loses straight apostrophes of what Typer tells it."""
        found: list[Any] = super().shell_complete(ctx, incomplete)
        for item in found:
            item.help = item.help and item.help.replace("'", "\N{RIGHT SINGLE QUOTATION MARK}")
        return found

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the examples, each on a line of its own however long it is."""
        _, examples = split_examples(self.help or "")
        if examples:
            with formatter.section("Examples"):
                formatter.write("".join(f"  {line}\n" for line in examples))


def _show_whole_page(ctx: Any, _parameter: Any, is_wanted: bool) -> None:
    if is_wanted and not ctx.resilient_parsing:
        ctx.meta[_IS_WHOLE] = True
        typer.echo(ctx.get_help())
        raise typer.Exit


def _common(parameters: list[Any], names: tuple[str, ...]) -> dict[str, list[Any]]:
    """The named ones in that order, and how to see help."""
    by_name = {each.name: each for each in parameters}
    return {_COMMON: [*(by_name[name] for name in names), by_name["help"], by_name["help_all"]]}


def _record(parameter: Any, ctx: Any) -> tuple[str, str] | None:
    """Name and sentence; of an argument without its type, which newer releases of Typer show."""
    if parameter.param_type_name == "argument":
        return _name(parameter), parameter.help or ""
    record: tuple[str, str] | None = parameter.get_help_record(ctx)
    return record


def _name(argument: Any) -> str:
    return str(argument.metavar or argument.name.upper())


def _leave_variables_out(parameters: list[Any]) -> None:
    """One sentence says how all of them are called, and that is not here."""
    for each in parameters:
        each.show_envvar = False


def grouped(parameters: list[Any]) -> dict[str, list[Any]]:
    """Options of a command by the title of their group, in the order of `Group`; one group if they are few."""
    options = [each for each in parameters if each.param_type_name == "option"]
    if len(options) < MIN_GROUPED:
        return {"Options": options}
    groups: dict[str, list[Any]] = {title: [] for title in (*get_args(Group), _REST)}
    for option in options:
        # what older releases of Typer make of --help has no group at all
        groups[getattr(option, "rich_help_panel", None) or _REST].append(option)
    return {title: listed for title, listed in groups.items() if listed}


def split_examples(docstring: str) -> tuple[str, list[str]]:
    """What a command does, and its examples, of a docstring that ends in a section of them."""
    text, _, examples = docstring.partition("\n\nExamples:\n")
    return text.strip(), [line.strip() for line in examples.splitlines() if line.strip()]
