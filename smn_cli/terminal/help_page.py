"""The help page of a command: its options in titled groups, and its examples as its docstring has them."""

from typing import Any, get_args

from typer.core import TyperCommand, TyperGroup

from smn_cli.config.option import Group

MIN_GROUPED = 10
"""Options from which on a page has groups; fewer are read at one look."""
_REST = "Other"


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

    def format_help_text(self, ctx: Any, formatter: Any) -> None:
        """Write what the command does; examples come last."""
        text, _ = split_examples(self.help or "")
        formatter.write_paragraph()
        with formatter.indentation():
            formatter.write_text(text)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write arguments, then options by group."""
        parameters = self.get_params(ctx)
        _leave_variables_out(parameters)
        titled = {"Arguments": [each for each in parameters if each.param_type_name == "argument"]}
        for title, listed in {**titled, **grouped(parameters)}.items():
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
