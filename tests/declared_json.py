"""Holds what commands write against what `smn_cli.schemas` declares: no field more, none less, types as they are."""

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, get_args

from pydantic import TypeAdapter
from typing_extensions import get_type_hints

from smn_cli.schemas.commands import CommandJson


@cache
def declarations() -> dict[str, TypeAdapter[Any]]:
    """Every command's JSON by its `schema`."""
    return {
        str(get_args(get_type_hints(declared)["schema"])[0]): TypeAdapter(declared)
        for declared in get_args(CommandJson)
    }


def check_json(text: str) -> None:
    """Refuse JSON that is not as declared.

    Raises:
        ValidationError: a field is missing, or of another type.
        AssertionError: a field is not declared.
    """
    content = json.loads(text)
    known = declarations()[content["schema"]].validate_json(text, strict=True)
    assert known == content  # what is not declared is missing in `known`


def check_written_json(words: Sequence[object], stdout: str = "") -> None:
    """Hold the JSON that a command wrote, if it was asked for, against its declaration.

    Args:
        words: of the command, which has succeeded.
        stdout: what it printed.
    """
    if "--json" not in words:
        return
    target = str(words[words.index("--json") + 1])
    if target == "-":
        check_json(stdout)
    elif Path(target).is_file():  # a pipe can be read only once
        check_json(Path(target).read_text())
