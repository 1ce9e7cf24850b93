"""Writes docs/json.md and docs/schemas/ from `smn_cli.schemas`; a test fails when they are stale.

python docs/make_json.py
"""

import json
import re
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from pydantic import TypeAdapter
from typing_extensions import NoExtraItems, NotRequired, get_original_bases, get_type_hints, is_typeddict

from smn_cli.schemas.commands import CommandJson

HERE = Path(__file__).parent

HEAD = """# JSON

Written by `docs/make_json.py` from `smn_cli/schemas`, the types that the commands themselves are checked against.

Every command takes `--json FILE`. `-` is stdout, which then holds one JSON object and nothing else; all words go to
stderr. A file is written whole or not at all.

- `schema` says which of the tables below an object follows. Within a schema fields are only ever added: read those you
  know and leave the others aside. What would break a reader is another schema, `smn.eval/2`.
- A command that fails writes no JSON and says why on stderr; its [exit code](cli.md) tells what kind of failure it was.
  The exception is a failed gate of `smn eval`: exit code 3, and the JSON is there.
- Accuracies, densities and shares are fractions of 1, gains are differences of them. `_bytes` and `bytes` are bytes,
  `_s` and `seconds` are seconds, sizes of images are pixels, counts are integers.
- Paths are as they were given. Digests are SHA-256 in hex. What is unknown or does not apply is null; a field that may
  be absent says so.
- [schemas/](schemas) holds the same as JSON Schema (2020-12), a file a command, for validators. They let unknown fields
  pass, as a reader should.

```sh
smn eval ./labeled --adapter adapter.safetensors --knn --linear --json - > scores.json || echo "exit code $?"
jq -r '.verdict, (.gain | to_entries[] | "\\(.key) \\(.value.value) (\\(.value.low) .. \\(.value.high))")' scores.json
jq -e '.gain["knn.top1"].low > 0' scores.json &&
  smn apply adapter.safetensors --out adapted.safetensors
```
"""


class Field(NamedTuple):
    """One field of an object: its name, type, meaning, and whether it is always there."""

    name: str
    type: Any
    meaning: str
    is_required: bool


def page() -> str:
    """All of docs/json.md."""
    parts, told = [HEAD, _contents()], set[str]()
    for declared in get_args(CommandJson):
        parts.append(_section(declared, "##", schema_of(declared)))
        for inner in _objects_in(declared):
            if inner.__name__ not in told:
                told.add(inner.__name__)
                parts.append(_section(inner, "###", _words(inner)))
    return "\n".join(parts)


def schema_files() -> dict[str, str]:
    """Content of docs/schemas/ by file name."""
    return {
        f"{schema_of(declared).replace('/', '.')}.json": json.dumps(json_schema(declared), indent=2) + "\n"
        for declared in get_args(CommandJson)
    }


def schema_of(declared: Any) -> str:
    """What a command's JSON says in `schema`, such as smn.eval/1."""
    return str(get_args(get_type_hints(declared)["schema"])[0])


def json_schema(declared: Any) -> dict[str, Any]:
    """The JSON Schema of one command, with the meanings as descriptions."""
    content = _without_titles(TypeAdapter(declared).json_schema())
    for each, place in [(declared, content), *((o, content["$defs"][o.__name__]) for o in _objects_in(declared))]:
        for field in fields_of(each):
            if field.name in place["properties"]:
                place["properties"][field.name]["description"] = field.meaning
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": schema_of(declared), **content}


def fields_of(declared: Any) -> list[Field]:
    """Fields in the order of their declaration, a class before what it extends."""
    hints = get_type_hints(declared, include_extras=True)
    fields = []
    for name in _names(declared):
        kind, is_required = hints[name], name in declared.__required_keys__
        if get_origin(kind) is NotRequired:
            (kind,) = get_args(kind)
        kind, meaning = get_args(kind) if get_origin(kind) is Annotated else (kind, "names this table")
        fields.append(Field(name, kind, meaning, is_required))
    if declared.__extra_items__ is not NoExtraItems:
        kind, meaning = get_args(declared.__extra_items__)
        name, _, meaning = meaning.partition(": ")
        fields.append(Field(name.strip("`"), kind, meaning, False))
    return fields


def _names(declared: Any) -> list[str]:
    bases = [base for base in get_original_bases(declared) if is_typeddict(base)]
    inherited = list(dict.fromkeys(name for base in bases for name in _names(base)))
    return [name for name in declared.__annotations__ if name not in inherited] + inherited


def _objects_in(declared: Any) -> list[Any]:
    """All objects that an object is made of, each once, outer ones first."""
    found: dict[str, Any] = {}
    for field in fields_of(declared):
        for each in _objects_of(field.type):
            found |= {inner.__name__: inner for inner in (each, *_objects_in(each)) if inner.__name__ not in found}
    return list(found.values())


def _objects_of(kind: Any) -> list[Any]:
    return [kind] if is_typeddict(kind) else [each for inner in get_args(kind) for each in _objects_of(inner)]


def _contents() -> str:
    links = [f"[{name}](#{re.sub('[^a-z0-9]', '', name)})" for name in map(schema_of, get_args(CommandJson))]
    return ", ".join(links) + ".\n"


def _section(declared: Any, level: str, title: str) -> str:
    lines = [f"{level} {title}\n", f"{declared.__doc__.strip()}\n", "| field | type | meaning |", "|---|---|---|"]
    for field in fields_of(declared):
        kind = _type_words(field.type) + ("" if field.is_required else "; may be absent")
        lines.append(f"| `{field.name}` | {kind} | {field.meaning} |")
    return "\n".join(lines) + "\n"


def _type_words(kind: Any) -> str:
    if is_typeddict(kind):
        return f"[{_words(kind)}](#{_words(kind).replace(' ', '-')})"
    if get_origin(kind) is list:
        return f"list of {_type_words(get_args(kind)[0])}"
    if get_origin(kind) is dict:
        return f"object: names to {_type_words(get_args(kind)[1])}"
    if get_origin(kind) is Literal:
        return " or ".join(f"`{json.dumps(value)}`" for value in get_args(kind))
    if get_origin(kind) in (Union, UnionType):
        return " or ".join(map(_type_words, get_args(kind)))
    plain = {str: "string", int: "integer", float: "number", bool: "boolean", NoneType: "null", Any: "anything"}
    return plain[kind]


def _words(declared: Any) -> str:
    """CascadePartJson as "cascade part"."""
    return " ".join(re.findall("[A-Z][a-z]+", declared.__name__.removesuffix("Json"))).lower()


def _without_titles(value: Any) -> Any:
    """Titles are the names of Python's classes and fields, which say nothing to a reader of JSON."""
    if isinstance(value, dict):
        return {
            key: _without_titles(each) for key, each in value.items() if key != "title" or not isinstance(each, str)
        }
    return [_without_titles(each) for each in value] if isinstance(value, list) else value


if __name__ == "__main__":
    (HERE / "json.md").write_text(page())
    for name, text in schema_files().items():
        (HERE / "schemas" / name).write_text(text)
