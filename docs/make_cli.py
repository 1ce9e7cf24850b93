"""Writes docs/cli.md from the commands themselves; a test fails when it is stale.

python docs/make_cli.py
"""

from pathlib import Path
from typing import Any

import typer.main

from smn_cli.cli import app
from smn_cli.terminal.help_page import grouped, split_examples

HEAD = """# Commands

Written by `docs/make_cli.py` from the commands themselves.

Talk goes to stderr, results to stdout. `--json FILE` writes the result as JSON with a `schema` field; `-` is stdout,
which then holds nothing else.

| exit code | meaning |
|---|---|
| 0 | done |
| 1 | unexpected fault |
| 2 | wrong usage |
| 3 | a gate of `smn eval` failed |
| 4 | adapter and base do not match |
| 5 | bad or missing data; the hub cannot be reached or refuses |
| 6 | unreadable or damaged file |
| 130 | interrupted; the state is saved and `--resume` continues |

Of `adapt`, `plan`, `eval` and `cascade`, `--help` shows the common options, `--help-all` every one.

`smn --debug COMMAND` shows tracebacks. `smn --install-completion` teaches the shell to complete options, choices and
names of architectures.

Every setting may also stand in a file, `smn.toml` or the table `[tool.smn]` of `pyproject.toml` in the working
directory (`$SMN_CONFIG` names another), or in the environment, as `SMN_ADAPT_STEPS=400`:

    [adapt]
    arch = "resnet50"
    batch-size = 64

What is typed comes first, then the environment, then the file. That holds for options that exclude each other, too:
with `weights` in the file, `smn verify --quick` leaves the weights out. A command that takes settings from there lists
them all, with where each came from, and which are not used because of what. Only gates never give way: a job that was
to be stopped would pass. `smn adapt --resume` keeps the settings of its run.
"""


def render() -> str:
    """The whole page."""
    group: Any = typer.main.get_command(app)
    return HEAD + "".join(_section(name, command) for name, command in group.commands.items())


def _section(name: str, command: Any) -> str:
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    groups = grouped(command.params)
    usage = " ".join(["smn", name, *(p.metavar or p.name.upper() for p in arguments), "[OPTIONS]"])
    text, examples = split_examples(command.help)
    lines = [f"\n## smn {name}\n", f"{text}\n", f"    {usage}\n", "For example:\n"]
    lines += [*(f"    {example}" for example in examples), ""]
    lines += ["| | | default |", "|---|---|---|"]
    lines += [f"| `{p.metavar or p.name.upper()}` | {p.help or ''} | |" for p in arguments]
    for title, options in groups.items():
        lines += [f"| **{title}** | | |"] if len(groups) > 1 else []
        lines += [f"| {_names(p)} | {p.help or ''} | {_default(p)} |" for p in options]
    return "\n".join(lines) + "\n"


def _names(option: Any) -> str:
    metavar = f" {option.metavar}" if option.metavar and not option.is_flag else ""
    words = ", ".join([option.opts[0] + metavar, *option.secondary_opts])
    return f"`{words}`".replace("|", r"\|")  # else a cell of the table would end there


def _default(option: Any) -> str:
    if option.required:
        return "required"
    if option.default in (None, ()) or option.is_flag or callable(option.default):
        return ""
    return f"`{option.default}`"


if __name__ == "__main__":
    Path(__file__).with_name("cli.md").write_text(render())
