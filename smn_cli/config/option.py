"""An option is declared once, where its field is; checks, command line, pages and signatures follow from that.

    @dataclass(frozen=True)
    class WarmUp:
        steps: int = option(10, "Steps of the warm-up.", "Method", minimum=0)

        def __post_init__(self) -> None:
            check_options(self)

`smn_cli.terminal.option_parameters` makes a command's parameters of it, and knows Typer; nothing here does.
"""

import inspect
import math
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, fields
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from smn_cli.errors import UsageError

Group = Literal["Network", "Data", "Method", "Mask", "Scores", "Gates", "Run", "Output"]
"""Titles of the groups of a help page, in their order there."""

Class = TypeVar("Class", bound=type)
Function = TypeVar("Function", bound=Callable[..., Any])
Value = TypeVar("Value")
_KEY = "option"


@dataclass(frozen=True)
class Option:
    """What is declared of an option.

    Attributes:
        name: of its field.
        type: of its field; a `Literal` in it has the words to choose from.
        default: of its field.
        help: one short sentence.
        group: title under which it stands.
        minimum, above: least value, with and without itself.
        maximum, below: greatest value, with and without itself.
        words: to choose from, where the type does not say them; looked up when they are asked for.
        told: the allowed values in words, where those that are made of the bounds do not say enough.
        metavar: what stands for the value on the command line.
    """

    name: str
    type: Any
    default: Any
    help: str
    group: Group
    minimum: float | None = None
    above: float | None = None
    maximum: float | None = None
    below: float | None = None
    words: Collection[str] = ()
    told: str = ""
    metavar: str | None = None

    @property
    def flag(self) -> str:
        """Its name on the command line."""
        return f"--{self.name.replace('_', '-')}"

    @property
    def choices(self) -> tuple[str, ...]:
        """The words to choose from; empty if it is no choice."""
        for part in (self.type, *get_args(self.type)):
            if get_origin(part) is Literal:
                return get_args(part)
        return tuple(self.words)

    @property
    def expected(self) -> str:
        """The allowed values in words; empty if the type says all."""
        return any_of(self.choices) if self.choices else self.range

    @property
    def range(self) -> str:
        """The bounds in words; empty if there are none."""
        if self.told:
            return self.told
        parts = [f"{self.minimum} or more"] if self.minimum is not None else []
        parts += [f"above {self.above}"] if self.above is not None else []
        parts += [f"at most {self.maximum}"] if self.maximum is not None else []
        parts += [f"below {self.below}"] if self.below is not None else []
        parts += ["finite"] if self._is_float and self.maximum is None and self.below is None else []
        return ", ".join(parts)

    def allows(self, value: Any) -> bool:
        """Whether a value, or an element of a tuple, is among the allowed ones; of floats only finite ones are."""
        if value is None and type(None) in get_args(self.type):
            return True
        if self.choices:
            return value in self.choices
        return (
            (self.minimum is None or value >= self.minimum)
            and (self.above is None or value > self.above)
            and (self.maximum is None or value <= self.maximum)
            and (self.below is None or value < self.below)
            and (not self._is_float or math.isfinite(value))
        )

    @property
    def _is_float(self) -> bool:
        return float in (self.type, *get_args(self.type))


def option(
    default: Value,
    help: str,
    group: Group,
    *,
    minimum: float | None = None,
    above: float | None = None,
    maximum: float | None = None,
    below: float | None = None,
    words: Collection[str] = (),
    told: str = "",
    metavar: str | None = None,
) -> Value:
    """Declare an option as a field of a dataclass; what may be given is said at `Option`."""
    declared = {name: value for name, value in locals().items() if name != "default"}
    return field(default=default, metadata={_KEY: declared})


def options_of(options: type) -> dict[str, Option]:
    """The declared options of a dataclass by field, in their order; its other fields are for Python alone."""
    types = get_type_hints(options)
    return {
        each.name: Option(each.name, types[each.name], each.default, **each.metadata[_KEY])
        for each in fields(options)
        if _KEY in each.metadata
    }


def check_options(options: Any) -> None:
    """Hold the values of a dataclass against what is declared of each alone.

    Raises:
        UsageError: the first value that is not allowed, with those that are.
    """
    for name, declared in options_of(type(options)).items():
        value = getattr(options, name)
        for each in value if isinstance(value, tuple) else (value,):
            require(declared.allows(each), f"`{name}`", each, declared.expected)


def require(holds: bool, flag: str, value: object, expected: str) -> None:
    """Refuse the value of an option unless something holds.

    Raises:
        UsageError: it does not; the message has the value and what was expected.
    """
    if not holds:
        raise UsageError(f"{flag} is {value}: expected {expected}")


def any_of(words: Collection[str]) -> str:
    """Words to choose from, as an error names them: "a or b", "one of a, b, c"."""
    return f"one of {', '.join(words)}" if len(words) > 2 else " or ".join(words)


def documents_options(options: Class) -> Class:
    """Give the docstring of a dataclass a line for each declared option."""
    options.__doc__ = f"{inspect.cleandoc(options.__doc__ or '')}\n\nAttributes:\n{_lines(options, indent=4)}"
    return options


def takes_settings(options: type) -> Callable[[Function], Function]:
    """Show the fields of a dataclass in the place of a function's `**settings`, in its signature and its docstring.

    The function takes a dictionary as before; `help` and notebooks show every setting with its type and default.
    """

    def with_settings(function: Function) -> Function:
        signature, types = inspect.signature(function), get_type_hints(options)
        own = [each for each in signature.parameters.values() if each.kind is not inspect.Parameter.VAR_KEYWORD]
        settings = [
            inspect.Parameter(
                each.name, inspect.Parameter.KEYWORD_ONLY, default=each.default, annotation=types[each.name]
            )
            for each in fields(options)
        ]
        function.__dict__["__signature__"] = signature.replace(parameters=[*own, *settings])
        before, marker, after = inspect.cleandoc(function.__doc__ or "").partition("    **settings:")
        told, _, rest = after.partition("\n")
        function.__doc__ = f"{before}{marker}{told}\n{_lines(options, indent=8)}\n{rest}" if marker else before
        return function

    return with_settings


def _lines(options: type, indent: int) -> str:
    """A line for each declared option: name, sentence, allowed values, default."""
    lines = []
    for declared in options_of(options).values():
        expected = f" Expected: {declared.expected}." if declared.expected else ""
        default = "" if declared.default is None else f" Default: {declared.default!r}."
        lines.append(f"{' ' * indent}{declared.name}: {declared.help}{expected}{default}")
    return "\n".join(lines)
