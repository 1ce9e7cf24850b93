"""Settings that are not typed: from a file and from the environment, and a word on where each came from."""

import os
import sys
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from smn_cli.errors import ClashError, UsageError
from smn_cli.recognise import read_file
from smn_cli.terminal.help_page import HelpPage
from smn_cli.terminal.option_parameters import CHECK

ENVIRONMENT_PREFIX = "SMN"
"""`SMN_ADAPT_STEPS` stands for `--steps` of `smn adapt`."""
FILE_VARIABLE, OWN_FILE, PROJECT_FILE = "SMN_CONFIG", "smn.toml", "pyproject.toml"
_SOURCES = ("DEFAULT_MAP", "ENVIRONMENT", "COMMANDLINE")
"""Click's names of who gave a parameter, the weakest first."""
_TYPED = _SOURCES.index("COMMANDLINE")


def settings_for(commands: Mapping[str, frozenset[str]]) -> dict[str, Any]:
    """What Typer is to be called with, so that a command takes settings from file and environment.

    Args:
        commands: names of parameters by name of the command.

    Raises:
        UsageError: the file cannot be read, or names what there is not.
    """
    return {"default_map": _read(commands), "auto_envvar_prefix": ENVIRONMENT_PREFIX}


def settings_file() -> Path | None:
    """`$SMN_CONFIG`, else smn.toml, else pyproject.toml of the working directory."""
    if own := os.environ.get(FILE_VARIABLE):
        return Path(own)
    return next((path for path in (Path(OWN_FILE), Path(PROJECT_FILE)) if path.is_file()), None)


class Command(HelpPage):
    """A command that tells which of its settings were not typed, and lets these give way where options clash."""

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        """As always, once no setting is a list where one value is taken, of which older releases of Typer make a fault.

        Raises:
            UsageError: one is.
        """
        of_file = ctx.default_map or {}
        for parameter in self.get_params(ctx):
            takes_one = parameter.nargs == 1 and not getattr(parameter, "multiple", False)
            if takes_one and isinstance(of_file.get(parameter.name), list):
                raise UsageError(f"{settings_file()}: [{ctx.info_name}] {parameter.name} is a list: expected one value")
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Settle what clashes, tell, then run.

        Raises:
            OSError: the working directory is no longer there, where torch would end the process.
        """
        Path.cwd()
        given = _Given(ctx, self.get_params(ctx))
        if given.has_settings:
            given.settle(getattr(self.callback, CHECK, None))
            given.tell(given.names)
        while True:
            try:
                return super().invoke(ctx)
            except ClashError as clash:  # one that only the work shows, such as what a network lacks
                if int(os.environ.get("WORLD_SIZE", "1")) > 1 or not (lost := given.give_way(clash)):
                    raise
                given.tell(lost)


class _Given:
    """The parameters of a command that someone gave, with who it was, and what gave way to what.

    Args:
        ctx: of the command; a parameter that gives way is set to its default there.
        parameters: of the command.
    """

    def __init__(self, ctx: Any, parameters: list[Any]) -> None:
        self.ctx = ctx
        sources = {each.name: getattr(ctx.get_parameter_source(each.name), "name", "") for each in parameters}
        self.parameters = {
            each.name: each
            for each in parameters
            # older releases of Typer call an empty list of arguments typed
            if sources[each.name] in _SOURCES and ctx.params.get(each.name) not in ([], ())
        }
        self.ranks = {name: _SOURCES.index(sources[name]) for name in self.parameters}
        self.values = {name: ctx.params.get(name) for name in self.parameters}
        self.causes: dict[str, str] = {}  # by name of what gave way

    @property
    def names(self) -> list[str]:
        return list(self.parameters)

    @property
    def has_settings(self) -> bool:
        return any(rank < _TYPED for rank in self.ranks.values())

    def settle(self, check: Callable[..., None] | None) -> None:
        """Let settings give way as long as something clashes and they can; the command refuses what is left."""
        is_settled = check is None
        while check is not None and not is_settled:
            is_settled = True
            try:
                check(**self.ctx.params)
            except ClashError as clash:
                is_settled = not self.give_way(clash)
            except UsageError:
                pass

    def give_way(self, clash: ClashError) -> list[str]:
        """Set to their defaults what stands below what it clashes with; returns their names, none if none does."""
        own = self._rank(clash.option)
        strongest = max(clash.others, key=self._rank, default=clash.option)
        if own < self._rank(strongest):
            losers = {clash.option: strongest}
        else:
            losers = {other: clash.option for other in clash.others if self._rank(other) < own}
        losers = {name: cause for name, cause in losers.items() if name in self.ranks and name not in self.causes}
        for name, cause in losers.items():
            parameter = self.parameters[name]
            self.causes[name] = self.causes.get(cause, cause)
            self.ctx.params[name] = parameter.process_value(self.ctx, parameter.default)
        return list(losers)

    def tell(self, names: list[str]) -> None:
        """A line for each: name, value, and where it comes from."""
        if os.environ.get("RANK", "0") != "0":
            return
        from smn_cli.console import Output

        output, rows = Output(), [self._row(name) for name in names]
        output.talk("settings, and where they come from:")
        widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
        for name, value, source in rows:
            output.talk(f"  {name.ljust(widths[0])}  {value.ljust(widths[1])}  {source}")

    def _rank(self, name: str) -> int:
        """Who stands higher wins; what gave way stands where its winner does, a default below all."""
        return self.ranks.get(self.causes.get(name, name), -1)

    def _row(self, name: str) -> tuple[str, str, str]:
        value, source = self.values[name], self._source(name)
        if cause := self.causes.get(name):
            how = "was typed" if self.ranks[cause] == _TYPED else f"comes from {self._source(cause)}"
            source += f", not used because {self.parameters[cause].opts[0]} {how}"
        shown = " ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
        return self.parameters[name].opts[0], shown, source

    def _source(self, name: str) -> str:
        variable = f"${ENVIRONMENT_PREFIX}_{self.ctx.info_name}_{name}".upper()
        return (str(settings_file()), variable, "command line")[self.ranks[name]]


def _read(commands: Mapping[str, frozenset[str]]) -> dict[str, dict[str, Any]]:
    path = settings_file()
    if path is None:
        return {}
    try:
        content = tomllib.loads(read_file(path).decode())
    except (OSError, ValueError, RecursionError) as error:
        if path.name == PROJECT_FILE and FILE_VARIABLE not in os.environ:
            return {}  # some other tool's, and broken
        raise UsageError(f"{path} cannot be read as TOML: {error}") from None
    if path.name == PROJECT_FILE:
        content = content.get("tool", {})
        content = content.get("smn", {}) if isinstance(content, dict) else {}
        if not isinstance(content, dict):
            raise UsageError(f"{path}: tool.smn is no table: write [tool.smn.adapt] and the settings below it")
    return {name: _table(path, name, table, commands) for name, table in content.items()}


def _table(path: Path, name: str, table: Any, commands: Mapping[str, frozenset[str]]) -> dict[str, Any]:
    if name not in commands:
        raise UsageError(f"{path}: there is no command [{name}]{_near(name, commands)}")
    if not isinstance(table, dict):
        raise UsageError(f"{path}: {name} is no table: write [{name}] and the settings below it")
    found = {key.replace("-", "_"): value for key, value in table.items()}
    for key, value in found.items():
        if key not in commands[name]:
            raise UsageError(f"{path}: [{name}] has no setting {key}{_near(key, commands[name])}")
        if (words := _as_typed(value)) is None:
            raise UsageError(f"{path}: [{name}] {key} is {value!s:.40}: expected text, a number, true, false or a list")
        found[key] = words
    return found


def _as_typed(value: Any) -> str | list[str] | None:
    """A value in the words in which it would be typed; None if it cannot be."""
    if isinstance(value, list):
        words = [_as_typed(each) for each in value]
        return [word for word in words if isinstance(word, str)] if all(isinstance(w, str) for w in words) else None
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return None if "\0" in value else value
    return repr(value) if isinstance(value, (int, float)) else None


def _near(word: str, words: Any) -> str:
    near = get_close_matches(word, list(words), n=1)
    return f"; is it {near[0]}?" if near else f": expected one of {', '.join(sorted(words))}"
