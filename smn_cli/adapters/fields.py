"""Fields of a header that may be hostile: one JSON object, each value of the type, size and depth it has to be of."""

import json
import math
import re
from collections.abc import Callable
from typing import Any

from smn_cli.errors import AdapterFileError

_HEX64 = re.compile(r"[0-9a-f]{64}\Z")
MAX_NAME = 512
"""Characters that a name has at most."""
_MAX_DIGITS = 20
_MAX_DEPTH = 32


def parse_object(text: str) -> dict[str, Any]:
    """The object that a header's text is.

    Raises:
        AdapterFileError: not JSON, not an object, a key twice, a number too large.
    """
    try:
        content = json.loads(
            text,
            object_pairs_hook=no_duplicates,
            parse_constant=_no_constant,
            parse_float=_finite,
            parse_int=_short_integer,
        )
    except (ValueError, RecursionError) as error:
        raise AdapterFileError(f"the header is not valid JSON: {error}") from None
    fields: dict[str, Any] = typed(content, "header", dict)
    return fields


def digest(fields: dict[str, Any], key: str) -> str:
    """The 64 hexadecimal digits of an object `{"digest": d}`."""
    found = get(get(fields, key, dict), "digest", str)
    if not _HEX64.match(found):
        raise AdapterFileError(f"{key}.digest is not 64 hexadecimal digits")
    return str(found)


def get(fields: dict[str, Any], key: str, kind: type) -> Any:
    """A field that has to be there."""
    if key not in fields:
        raise AdapterFileError(f"the header lacks {key!r}")
    return typed(fields[key], key, kind)


def name(value: Any, where: str, *, may_be_empty: bool = False, most: int = MAX_NAME) -> str:
    """A name that messages and tables can show: no control characters, line breaks, halves of surrogate pairs."""
    found: str = typed(value, where, str)
    if len(found) > most or not found.isprintable() or not (found or may_be_empty):
        raise AdapterFileError(f"{where} holds no usable name: {found[:40]!a}")
    return found


def plain(fields: dict[str, Any], key: str) -> dict[str, Any]:
    """An object of plain values, not nested too deep."""
    content: dict[str, Any] = get(fields, key, dict)
    level: list[Any] = [content]
    for _ in range(_MAX_DEPTH):
        containers = [item.values() if isinstance(item, dict) else item for item in level if type(item) in (dict, list)]
        level = [child for container in containers for child in container]
        if not level:
            return content
    raise AdapterFileError(f"{key} in the header is nested more than {_MAX_DEPTH} deep")


def typed(value: Any, where: str, kind: type) -> Any:
    """A value of exactly one type."""
    if type(value) is not kind:  # bool is an int to isinstance
        raise AdapterFileError(f"{where} in the header is of type {type(value).__name__}: expected {kind.__name__}")
    return value


def no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Hook for `json.loads` that refuses a key that stands twice, which readers would take differently."""
    content = dict(pairs)
    if len(content) != len(pairs):
        raise ValueError("a key stands twice")
    return content


def _no_constant(constant: str) -> Callable[[], None]:
    raise ValueError(f"{constant} is not a JSON number")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("a number is too large")
    return number


def _short_integer(text: str) -> int:
    if len(text) > _MAX_DIGITS:  # Python 3.10's first releases take minutes for a million digits
        raise ValueError(f"an integer has {len(text)} digits")
    return int(text)
