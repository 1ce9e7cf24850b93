"""Writes docs/cli.md from the commands themselves; a test fails when it is stale.

python docs/make_cli.py
"""

from pathlib import Path
from typing import Any

import typer.main

from smn_cli.cli import app

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
| 5 | bad or missing data |
| 6 | unreadable or damaged file |
| 130 | interrupted; the state is saved and `--resume` continues |

`smn --debug COMMAND` shows tracebacks.
"""


def render() -> str:
    """The whole page."""
    group: Any = typer.main.get_command(app)
    return HEAD + "".join(_section(name, command) for name, command in group.commands.items())


def _section(name: str, command: Any) -> str:
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option" and "--help" not in p.opts]
    usage = " ".join(["smn", name, *(p.metavar or p.name.upper() for p in arguments), "[OPTIONS]"])
    lines = [f"\n## smn {name}\n", f"{command.help.strip()}\n", f"    {usage}\n"]
    lines += ["| | | default |", "|---|---|---|"]
    lines += [f"| `{p.metavar or p.name.upper()}` | {p.help or ''} | |" for p in arguments]
    lines += [f"| {_names(p)} | {p.help or ''} | {_default(p)} |" for p in options]
    return "\n".join(lines) + "\n"


def _names(option: Any) -> str:
    metavar = f" {option.metavar}" if option.metavar and not option.is_flag else ""
    return f"`{option.opts[0]}{metavar}`"


def _default(option: Any) -> str:
    if option.required:
        return "required"
    if option.default is None or option.is_flag or callable(option.default):
        return ""
    return f"`{option.default}`"


if __name__ == "__main__":
    Path(__file__).with_name("cli.md").write_text(render())
