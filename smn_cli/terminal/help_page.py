"""The help page of a command: its options in titled groups, and its examples as its docstring has them."""

from typing import Any, get_args

from typer.core import TyperCommand

from smn_cli.config.option import Group

MIN_GROUPED = 10
"""Options from which on a page has groups; fewer are read at one look."""
_REST = "Other"


class HelpPage(TyperCommand):
    """A command whose page stays plain text, which Rich would cut long names and square brackets out of."""

    def format_help_text(self, ctx: Any, formatter: Any) -> None:
        """Write what the command does; examples come last."""
        text, _ = split_examples(self.help or "")
        formatter.write_paragraph()
        with formatter.indentation():
            formatter.write_text(text)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write arguments, then options by group."""
        parameters = self.get_params(ctx)
        titled = {"Arguments": [each for each in parameters if each.param_type_name == "argument"]}
        for title, listed in {**titled, **grouped(parameters)}.items():
            records = [record for each in listed if (record := each.get_help_record(ctx)) is not None]
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the examples, each on a line of its own however long it is."""
        _, examples = split_examples(self.help or "")
        if examples:
            with formatter.section("Examples"):
                formatter.write("".join(f"  {line}\n" for line in examples))


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
