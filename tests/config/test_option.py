"""What follows from the declaration of an option: what is allowed, what is said, what Python shows."""

import inspect
from dataclasses import dataclass, replace
from typing import Any, Literal

import pytest

from smn_cli.config.option import Option, check_options, documents_options, option, options_of, takes_settings
from smn_cli.errors import UsageError

INF, NAN = float("inf"), float("nan")


@documents_options
@dataclass(frozen=True)
class Tea:
    """How tea is made."""

    leaf: Literal["green", "black"] = option("green", "Which leaf.", "Data")
    cup_size: int | None = option(None, "Of the cup.", "Data", minimum=2, below=9)
    sugar: tuple[float, ...] = option((), "Spoons.", "Method", above=0)
    spare: int = 5

    def __post_init__(self) -> None:
        check_options(self)


def declared(kind: Any, **rules: Any) -> Option:
    """An option of a type."""
    return Option("x", kind, None, "Help.", "Data", **rules)


@pytest.mark.parametrize(
    ("rules", "kind", "allowed", "refused", "expected"),
    [
        ({"minimum": 1}, int, [1, 2**70], [0, None], "1 or more"),
        ({"minimum": 0}, float | None, [0.0, 1e300, None], [-1e-9, INF, NAN], "0 or more, finite"),
        ({"above": 0, "maximum": 1}, float, [1e-9, 1.0], [0.0, 1.1, NAN], "above 0, at most 1"),
        ({"minimum": 0, "below": 8}, int, [0, 7], [-1, 8], "0 or more, below 8"),
        ({"maximum": 1}, float, [1.0, -5.0], [1.1, NAN, -INF], "at most 1"),
        ({"minimum": 0, "told": "a fraction"}, int, [0], [-1], "a fraction"),
        ({"words": {"a": 1, "b": 2, "c": 3}}, str, ["a", "c"], ["d", "", None], "one of a, b, c"),
        ({}, Literal["a", "b"] | None, ["a", None], ["c"], "a or b"),
        ({}, tuple[Literal["a"], ...], ["a"], ["b"], "a"),
        ({}, float, [0.5], [INF, NAN], "finite"),
        ({}, str, ["", "x"], [], ""),
    ],
)
def test_what_is_allowed_and_how_it_is_said(
    rules: dict[str, Any], kind: Any, allowed: list[Any], refused: list[Any], expected: str
) -> None:
    found = declared(kind, **rules)
    assert found.expected == expected
    assert [value for value in allowed if not found.allows(value)] == []
    # a missing value has no order, unless there is one to choose
    assert [value for value in refused if (value is not None or found.choices) and found.allows(value)] == []


def test_words_to_choose_from_are_looked_up_when_they_are_asked_for() -> None:
    words = {"a": 1}
    found = declared(str, words=words)
    words["b"] = 2
    assert found.allows("b")
    assert found.expected == "a or b"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"leaf": "red"}, "`leaf` is red: expected green or black"),
        ({"cup_size": 9}, "`cup_size` is 9: expected 2 or more, below 9"),
        ({"sugar": (1.0, 0.0)}, "`sugar` is 0.0: expected above 0, finite"),
    ],
)
def test_a_value_that_is_not_allowed_is_refused_with_those_that_are(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as error:
        replace(Tea(), **given)
    assert str(error.value) == message


def test_a_field_keeps_its_type_and_its_default_and_others_are_no_options() -> None:
    assert Tea() == Tea("green", None, (), 5)
    assert list(options_of(Tea)) == ["leaf", "cup_size", "sugar"]
    assert str(inspect.signature(Tea)).startswith("(leaf: Literal['green', 'black'] = 'green', cup_size: int | None = ")


def test_docstring_and_signature_name_every_option() -> None:
    @takes_settings(Tea)
    def brew(water: float, *, pot: str = "blue", **settings: Any) -> Tea:
        """Brew tea.

        Args:
            water: litres.
            **settings: fields of `Tea`.

        Returns:
            The tea.
        """
        return Tea(**settings)

    lines = [
        "leaf: Which leaf. Expected: green or black. Default: 'green'.",
        "cup_size: Of the cup. Expected: 2 or more, below 9.",
        "sugar: Spoons. Expected: above 0, finite. Default: ().",
    ]
    assert Tea.__doc__ == "\n    ".join(["How tea is made.\n\nAttributes:", *lines])
    assert "\n        ".join(["    **settings: fields of `Tea`.", *lines]) + "\n\nReturns:\n" in str(brew.__doc__)
    assert list(inspect.signature(brew).parameters) == ["water", "pot", "leaf", "cup_size", "sugar", "spare"]
    assert inspect.signature(brew).parameters["cup_size"].annotation == int | None
    assert brew(1.0, leaf="black").leaf == "black"


def test_the_python_api_names_every_setting() -> None:
    from smn_cli import adapt
    from smn_cli.config.options import AdaptOptions

    assert inspect.signature(AdaptOptions).parameters.keys() < inspect.signature(adapt).parameters.keys()
    assert "        recipe: default; swav (no teacher); paper (its exact settings). Expected: one of" in str(
        adapt.__doc__
    )
