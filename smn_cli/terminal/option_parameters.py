"""Declared options (`smn_cli.config.option`) as parameters of commands: type, help, default, choices and group."""

import inspect
from collections.abc import Callable, Collection
from dataclasses import fields, is_dataclass
from functools import wraps
from typing import Any, get_args, get_origin

import typer

from smn_cli.config.option import Option, options_of
from smn_cli.terminal.arch_names import complete_arch, complete_teacher

CHECK = "check_given"
"""Attribute of a command: holds its parameters, by name, against each other."""
_NAMES = {"teacher": complete_teacher, "witness": complete_arch}
"""Options whose words are no fixed choice, with what completes them."""


def checked_by(check: Callable[..., None]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Hold a command's parameters against each other before it starts.

    Args:
        check: takes some of them by name, and raises `UsageError`; `ClashError` where a setting may give way.
    """
    names = inspect.signature(check).parameters

    def with_check(command: Callable[..., None]) -> Callable[..., None]:
        def check_given(**given: Any) -> None:
            check(**{name: given[name] for name in names})

        @wraps(command)
        def checked(**given: Any) -> None:
            check_given(**given)
            command(**given)

        checked.__dict__[CHECK] = check_given
        return checked

    return with_check


def names_given(options: Any) -> list[str]:
    """Fields of a dataclass that are not as by default."""
    return [each.name for each in fields(options) if getattr(options, each.name) != each.default]


def takes_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of a dataclass in the place of each parameter that is one.

    The command gets the dataclass made of what was given, and so its checks, before it starts.
    """
    taken: dict[str, type] = {}
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(command).parameters.values():
        if isinstance(parameter.annotation, type) and is_dataclass(parameter.annotation):
            taken[parameter.name] = parameter.annotation
            parameters += map(_parameter, options_of(parameter.annotation).values())
        else:
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))

    def made_of(given: dict[str, Any]) -> dict[str, Any]:
        return {**{name: _make(options, given) for name, options in taken.items()}, **given}

    @wraps(command)
    def with_options(**given: Any) -> None:
        command(**made_of(given))

    def check_given(**given: Any) -> None:
        command.__dict__.get(CHECK, dict)(**made_of(given))

    with_options.__dict__[CHECK] = check_given
    with_options.__dict__["__signature__"] = inspect.Signature(parameters)  # what Typer reads
    with_options.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return with_options


def choosing(choices: Collection[str]) -> dict[str, Any]:
    """What `typer.Option` needs to list choices and to complete them; who takes the option refuses other words."""

    def complete(incomplete: str) -> list[str]:
        return [choice for choice in choices if choice.startswith(incomplete)]

    return {"metavar": f"<{'|'.join(choices)}>", "autocompletion": complete}


def _make(options: type, given: dict[str, Any]) -> Any:
    """Take the options of a dataclass out of what was given, and make it of them."""
    values = {name: given.pop(name) for name in options_of(options)}
    return options(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


def _parameter(declared: Option) -> inspect.Parameter:
    """The parameter that Typer makes an option of."""
    kind, flag = declared.type, declared.flag
    shown: dict[str, Any] = {"metavar": declared.metavar, "autocompletion": _NAMES.get(declared.name)}
    if declared.choices:  # plain words to Typer, so that one check speaks to the command line and to Python
        kind, shown = str | None, choosing(declared.choices)
    elif get_origin(kind) is tuple:
        kind = list[get_args(kind)[0]]  # type: ignore[misc]  # a type that is made while running
    elif bool in get_args(kind) or declared.default is True:
        flag = f"{flag}/--no-{flag.removeprefix('--')}"
    text = f"{declared.help}  [{declared.range}]" if declared.range else declared.help
    told = typer.Option(declared.default, flag, help=text, rich_help_panel=declared.group, **shown)
    return inspect.Parameter(declared.name, inspect.Parameter.KEYWORD_ONLY, default=told, annotation=kind)
