"""Settings that are not typed: from a file and from the environment, and a word on where each came from."""

import os
import sys
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from smn_cli.errors import UsageError
from smn_cli.terminal.help_page import HelpPage

ENVIRONMENT_PREFIX = "SMN"
"""`SMN_ADAPT_STEPS` stands for `--steps` of `smn adapt`."""
FILE_VARIABLE, OWN_FILE, PROJECT_FILE = "SMN_CONFIG", "smn.toml", "pyproject.toml"
_OF_A_RUN = frozenset({"out", "weights", "device", "workers", "val", "json", "log", "save_every"})
"""What `--resume` takes; all else is the run's own."""


def settings_for(words: list[str], commands: Mapping[str, frozenset[str]]) -> dict[str, Any]:
    """What Typer is to be called with, so that a command takes settings from file and environment.

    Args:
        words: of the command line.
        commands: names of parameters by name of the command.

    Raises:
        UsageError: the file cannot be read, or names what there is not.
    """
    found = _read(commands)
    if "--resume" in words:  # the settings are those of the run
        return {"default_map": {name: _kept(table) for name, table in found.items()}}
    return {"default_map": found, "auto_envvar_prefix": ENVIRONMENT_PREFIX}


def settings_file() -> Path | None:
    """`$SMN_CONFIG`, else smn.toml, else pyproject.toml of the working directory."""
    if own := os.environ.get(FILE_VARIABLE):
        return Path(own)
    return next((path for path in (Path(OWN_FILE), Path(PROJECT_FILE)) if path.is_file()), None)


class Command(HelpPage):
    """A command that tells which of its settings were not typed."""

    def invoke(self, ctx: Any) -> Any:
        """Tell, then run.

        Raises:
            OSError: the working directory is no longer there, where torch would end the process.
        """
        Path.cwd()
        rows = [row for parameter in self.get_params(ctx) if (row := _told(ctx, parameter)) is not None]
        if any(source != "command line" for _, _, source in rows) and os.environ.get("RANK", "0") == "0":
            from smn_cli.console import Output

            output = Output()
            output.talk("settings, and where they come from:")
            widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
            for name, value, source in rows:
                output.talk(f"  {name.ljust(widths[0])}  {value.ljust(widths[1])}  {source}")
        return super().invoke(ctx)


def _told(ctx: Any, parameter: Any) -> tuple[str, str, str] | None:
    """Name, value and source of a setting; None if it is a default."""
    kind = getattr(ctx.get_parameter_source(parameter.name), "name", "DEFAULT")
    names = {
        "COMMANDLINE": "command line",
        "ENVIRONMENT": f"${ENVIRONMENT_PREFIX}_{ctx.info_name}_{parameter.name}".upper(),
        "DEFAULT_MAP": str(settings_file()),
    }
    if kind not in names:
        return None
    value = ctx.params.get(parameter.name)
    shown = " ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
    return parameter.opts[0], shown, names[kind]


def _read(commands: Mapping[str, frozenset[str]]) -> dict[str, dict[str, Any]]:
    path = settings_file()
    if path is None:
        return {}
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        if path.name == PROJECT_FILE and FILE_VARIABLE not in os.environ:
            return {}  # some other tool's, and broken
        raise UsageError(f"{path} cannot be read as TOML: {error}") from None
    if path.name == PROJECT_FILE:
        content = content.get("tool", {}).get("smn", {})
    return {name: _table(path, name, table, commands) for name, table in content.items()}


def _table(path: Path, name: str, table: Any, commands: Mapping[str, frozenset[str]]) -> dict[str, Any]:
    if name not in commands:
        raise UsageError(f"{path}: there is no command [{name}]{_near(name, commands)}")
    if not isinstance(table, dict):
        raise UsageError(f"{path}: {name} is no table: write [{name}] and the settings below it")
    found = {key.replace("-", "_"): value for key, value in table.items()}
    for key in found:
        if key not in commands[name]:
            raise UsageError(f"{path}: [{name}] has no setting {key}{_near(key, commands[name])}")
    return found


def _near(word: str, words: Any) -> str:
    near = get_close_matches(word, list(words), n=1)
    return f"; is it {near[0]}?" if near else f": expected one of {', '.join(sorted(words))}"


def _kept(table: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in table.items() if key in _OF_A_RUN}
