"""The header of a cascade file: one JSON object, checked field by field (docs/format.md, "The cascade file")."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from smn_cli.adapters.fields import digest, get, parse_object, plain, typed
from smn_cli.errors import AdapterFileError
from smn_cli.hub import local_file
from smn_cli.recognise import METADATA_KEY, check_regular

FORMAT = "smn.cascade"
VERSION = 1
_MAX_EXPERTS = 4096
_MAX_COUNTS = 1 << 18
"""Masked tensors of all experts together; a thousand experts over a ResNet-101 have half of it."""
_MAX_SIDE = 1 << 32
_HEAD_BYTES = 1 << 24


@dataclass(frozen=True)
class ExpertEntry:
    """What the header says of one expert.

    Attributes:
        adapted_digest: fingerprint of its network, 64 hex characters.
        num_kept: weights it keeps in each masked tensor of the dispatcher, in that order.
        num_bytes: of its cuts, of its returns, of its statistics.
        provenance: what differs from the dispatcher's; plain values, for people.
    """

    adapted_digest: str
    num_kept: tuple[int, ...]
    num_bytes: tuple[int, int, int]
    provenance: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class CascadeHeader:
    """Everything in a cascade file but the tensors.

    Attributes:
        mode: "conditional" or "unconditional".
        router_kind, combination_kind: see `Router` and `Combination`.
        dim, seed: of the combination.
        experts: in the router's order.
        provenance: plain values, for people.
    """

    mode: str
    router_kind: str
    combination_kind: str
    dim: int
    seed: int
    experts: tuple[ExpertEntry, ...]
    provenance: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """Canonical text: sorted keys, no spaces, ASCII."""
        content = {
            "format": FORMAT,
            "version": VERSION,
            "mode": self.mode,
            "router": {"kind": self.router_kind},
            "combination": {"kind": self.combination_kind, "dim": self.dim, "seed": self.seed},
            "experts": [
                {
                    "adapted": {"digest": expert.adapted_digest},
                    "kept": list(expert.num_kept),
                    "bytes": list(expert.num_bytes),
                    "provenance": expert.provenance,
                }
                for expert in self.experts
            ],
            "provenance": self.provenance,
        }
        return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def parse_cascade_header(text: str) -> CascadeHeader:
    """Header from its text. Unknown keys are left aside; a newer version is refused.

    Raises:
        AdapterFileError: not JSON, a key twice, or a field missing or of the wrong kind; the message names it.
    """
    fields = parse_object(text)
    if get(fields, "format", str) != FORMAT:
        raise AdapterFileError(f"the header says format {fields['format']!r:.40}: expected {FORMAT!r}")
    version = get(fields, "version", int)
    if version != VERSION:
        raise AdapterFileError(f"cascade version {version}: this smn reads version {VERSION}; update smn-cli")
    combination = get(fields, "combination", dict)
    experts = get(fields, "experts", list)
    if not 0 < len(experts) <= _MAX_EXPERTS:
        raise AdapterFileError(f"the header lists {len(experts)} experts: expected between 1 and {_MAX_EXPERTS}")
    kept = (get(typed(value, f"experts[{number}]", dict), "kept", list) for number, value in enumerate(experts))
    num_counts = sum(map(len, kept))
    if num_counts > _MAX_COUNTS:
        raise AdapterFileError(
            f"the header counts {num_counts:,} masks of all experts: expected at most {_MAX_COUNTS:,}"
        )
    return CascadeHeader(
        mode=get(fields, "mode", str),
        router_kind=get(get(fields, "router", dict), "kind", str),
        combination_kind=get(combination, "kind", str),
        dim=_count(get(combination, "dim", int), "combination.dim"),
        seed=_count(get(combination, "seed", int), "combination.seed"),
        experts=tuple(_expert(value, f"experts[{position}]") for position, value in enumerate(experts)),
        provenance=plain(fields, "provenance"),
    )


def _expert(value: Any, where: str) -> ExpertEntry:
    fields = typed(value, where, dict)
    num_bytes = [_count(each, f"{where}.bytes") for each in get(fields, "bytes", list)]
    if len(num_bytes) != 3:
        raise AdapterFileError(f"{where}.bytes has {len(num_bytes)} parts: expected cuts, returns and statistics")
    return ExpertEntry(
        adapted_digest=digest(fields, "adapted"),
        num_kept=tuple(_count(each, f"{where}.kept") for each in get(fields, "kept", list)),
        num_bytes=(num_bytes[0], num_bytes[1], num_bytes[2]),
        provenance=plain(fields, "provenance"),
    )


def _count(value: Any, where: str) -> int:
    number: int = typed(value, where, int)
    if not 0 <= number < _MAX_SIDE:
        raise AdapterFileError(f"{where} in the header is {number}: expected 0 to {_MAX_SIDE - 1}")
    return number


def is_cascade(path: str | Path) -> bool:
    """Whether a file says that it is a cascade; false where it cannot be read, which its reader will tell.

    Raises:
        HubError: it is at an address of the hub, and cannot be fetched.
    """
    local = local_file(path)
    if check_regular(local) is not None:  # a pipe would be waited for
        return False
    try:
        with local.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            text = json.loads(file.read(length) if length <= _HEAD_BYTES else b"")["__metadata__"][METADATA_KEY]
            return bool(json.loads(text)["format"] == FORMAT)
    except (OSError, ValueError, RecursionError, KeyError, TypeError):
        return False
