"""The header of an adapter file: one JSON object, checked field by field (docs/format.md, "Header")."""

import json
import math
from dataclasses import dataclass, field, replace
from typing import Any

from smn_cli.adapters.fields import MAX_NAME, parse_object
from smn_cli.adapters.fields import digest as _digest
from smn_cli.adapters.fields import get as _get
from smn_cli.adapters.fields import name as _name
from smn_cli.adapters.fields import plain as _plain
from smn_cli.adapters.fields import typed as _typed
from smn_cli.errors import AdapterFileError, UsageError
from smn_cli.schemas.readout_kinds import LINEAR_KINDS, LinearKind

FORMAT = "smn.adapter"
VERSION = 1
_MAX_TENSORS = 100_000
_MAX_WEIGHTS = 1 << 40
MAX_DESCRIPTION = 4096
"""Characters of a description at most."""
STATISTICS = ("running_mean", "running_var")
"""How the names of tensors end that may be carried as statistics."""


@dataclass(frozen=True)
class MaskEntry:
    """One masked tensor: its name and shape in the base, and how many of its weights are kept."""

    name: str
    shape: tuple[int, ...]
    num_kept: int

    @property
    def num_weights(self) -> int:
        """Weights in the tensor."""
        return math.prod(self.shape)

    @property
    def density(self) -> float:
        """Fraction kept."""
        return self.num_kept / self.num_weights


@dataclass(frozen=True)
class HeadEntry:
    """A carried classifier: timm's name of its layer, the width of the features, its classes in the order of logits."""

    name: str
    num_features: int
    classes: tuple[str, ...]


@dataclass(frozen=True)
class ReadoutEntry:
    """A carried readout: its kind, the numbers that it gives of how many features, the images it was fitted to."""

    kind: LinearKind
    dim: int
    num_features: int
    num_images: int

    @property
    def bits(self) -> int:
        """Of a stored number of what grows with the features: of the matrix, or of the mean where there is none."""
        return 16 if self.kind == "centred" else 8

    def to_json(self) -> dict[str, Any]:
        """As in the header."""
        return {
            "kind": self.kind,
            "dim": self.dim,
            "features": self.num_features,
            "images": self.num_images,
            "bits": self.bits,
        }


@dataclass(frozen=True)
class Header:
    """Everything in an adapter file but the bits, the statistics and the digests per tensor.

    Attributes:
        arch, tag: the timm architecture and, if known, the name of its pretrained weights.
        base_digest, adapted_digest: fingerprints of the base and of the rebuilt network, 64 hex characters each.
        codec: name of the mask's codec.
        needs_base: whether that codec needs the base's weights to decode.
        masks: masked tensors in the order of the bit stream.
        norm_stats: names and lengths of the carried statistics, in the order of their values; empty if frozen.
        preprocessing: how images were prepared; plain values.
        provenance: where the adapter comes from; plain values, for people.
        head: of the carried classifier; None if there is none.
        readout: of the carried readout; None if there is none.
        licence: under which the adapter may be used, such as "apache-2.0"; empty if it does not say.
        description: by its maker, in one line; empty if there is none.
    """

    arch: str
    tag: str
    base_digest: str
    adapted_digest: str
    codec: str
    needs_base: bool
    masks: tuple[MaskEntry, ...]
    norm_stats: tuple[tuple[str, int], ...]
    preprocessing: dict[str, Any]
    provenance: dict[str, Any] = field(default_factory=dict)
    head: HeadEntry | None = None
    readout: ReadoutEntry | None = None
    licence: str = ""
    description: str = ""

    @property
    def num_weights(self) -> int:
        """Masked weights in all, which is the number of bits in the stream."""
        return sum(entry.num_weights for entry in self.masks)

    @property
    def density(self) -> float:
        """Fraction of all masked weights that is kept."""
        return sum(entry.num_kept for entry in self.masks) / self.num_weights

    def described(self, *, licence: str | None = None, description: str | None = None) -> "Header":
        """With other texts; None leaves what is there, "" takes it off.

        Args:
            licence: such as "apache-2.0", at most 512 characters.
            description: one line of at most 4096 characters.

        Raises:
            UsageError: too long, or with line breaks or other things that cannot be printed.
        """
        check_texts(licence, description)
        return replace(
            self,
            licence=self.licence if licence is None else licence,
            description=self.description if description is None else description,
        )

    def to_json(self) -> str:
        """Canonical text: sorted keys, no spaces, ASCII."""
        content: dict[str, Any] = {
            "format": FORMAT,
            "version": VERSION,
            "arch": self.arch,
            "tag": self.tag,
            "base": {"digest": self.base_digest},
            "adapted": {"digest": self.adapted_digest},
            "codec": self.codec,
            "needs_base": self.needs_base,
            "masks": [[entry.name, list(entry.shape), entry.num_kept] for entry in self.masks],
            "norm_stats": [list(pair) for pair in self.norm_stats],
            "preprocessing": self.preprocessing,
            "provenance": self.provenance,
        }
        if self.head is not None:
            content["head"] = [self.head.name, self.head.num_features, list(self.head.classes)]
        if self.readout is not None:
            content["readout"] = self.readout.to_json()
        content |= {key: text for key, text in (("license", self.licence), ("description", self.description)) if text}
        return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def check_texts(licence: str | None, description: str | None) -> None:
    """Refuse what no header may hold; None is nothing.

    Raises:
        UsageError: too long, or with line breaks or other things that cannot be printed.
    """
    for what, text, most in (("license", licence, MAX_NAME), ("description", description, MAX_DESCRIPTION)):
        if text and (len(text) > most or not text.isprintable()):
            raise UsageError(f"`{what}` has {len(text)} characters: expected one printable line of at most {most}")


def parse_header(text: str) -> Header:
    """Header from its text. Unknown keys are left aside; a newer version is refused.

    Raises:
        AdapterFileError: not JSON, a key twice, or a field missing or of the wrong kind; the message names it.
    """
    fields = parse_object(text)
    if _get(fields, "format", str) != FORMAT:
        raise AdapterFileError(f"the header says format {fields['format']!r:.40}: expected {FORMAT!r}")
    version = _get(fields, "version", int)
    if version != VERSION:
        raise AdapterFileError(f"format version {version}: this smn reads version {VERSION}; update smn-cli")
    return Header(
        arch=_name(_get(fields, "arch", str), "arch"),
        tag=_name(_get(fields, "tag", str), "tag", may_be_empty=True),
        base_digest=_digest(fields, "base"),
        adapted_digest=_digest(fields, "adapted"),
        codec=_get(fields, "codec", str),
        needs_base=_get(fields, "needs_base", bool),
        masks=_masks(_get(fields, "masks", list)),
        norm_stats=_norm_stats(_get(fields, "norm_stats", list)),
        preprocessing=_plain(fields, "preprocessing"),
        provenance=_plain(fields, "provenance"),
        head=_head(_get(fields, "head", list)) if "head" in fields else None,
        readout=_readout(_get(fields, "readout", dict)) if "readout" in fields else None,
        licence=_name(fields["license"], "license") if "license" in fields else "",
        description=(
            _name(fields["description"], "description", most=MAX_DESCRIPTION) if "description" in fields else ""
        ),
    )


def _masks(values: list[Any]) -> tuple[MaskEntry, ...]:
    if not 0 < len(values) <= _MAX_TENSORS:
        raise AdapterFileError(f"the header lists {len(values)} masks: expected between 1 and {_MAX_TENSORS}")
    entries = tuple(_entry(value, f"masks[{position}]") for position, value in enumerate(values))
    names = [entry.name for entry in entries]
    if len(set(names)) != len(names):
        raise AdapterFileError("the header lists a masked tensor twice")
    if sum(entry.num_weights for entry in entries) > _MAX_WEIGHTS:
        raise AdapterFileError("the header promises more weights than any network has")
    return entries


def _entry(value: Any, where: str) -> MaskEntry:
    parts = _typed(value, where, list)
    if len(parts) != 3:
        raise AdapterFileError(f"{where} has {len(parts)} parts: expected name, shape and number kept")
    name, shape, num_kept = _name(parts[0], where), _typed(parts[1], where, list), _typed(parts[2], where, int)
    if len(shape) > 8 or not all(type(side) is int and 0 < side <= _MAX_WEIGHTS for side in shape):
        raise AdapterFileError(f"{where} has no usable shape")
    entry = MaskEntry(name, tuple(shape), num_kept)
    if entry.num_weights > _MAX_WEIGHTS or not 0 < num_kept <= entry.num_weights:
        raise AdapterFileError(f"{where} keeps {num_kept} of {entry.num_weights} weights")
    return entry


def _norm_stats(values: list[Any]) -> tuple[tuple[str, int], ...]:
    pairs = []
    for position, value in enumerate(values[: _MAX_TENSORS + 1]):
        where = f"norm_stats[{position}]"
        pair = _typed(value, where, list)
        if len(pair) != 2 or type(pair[1]) is not int or not 0 < pair[1] < 1 << 32:
            raise AdapterFileError(f"{where} is not a name and a length")
        pairs.append((_name(pair[0], where), pair[1]))
        if not pairs[-1][0].endswith(STATISTICS):
            raise AdapterFileError(f"{where} is {pair[0]}: expected a name that ends in {' or '.join(STATISTICS)}")
    if len({name for name, _ in pairs}) != len(pairs) or len(pairs) > _MAX_TENSORS:
        raise AdapterFileError("the header lists statistics twice, or too many")
    return tuple(pairs)


def _head(parts: list[Any]) -> HeadEntry:
    if len(parts) != 3:
        raise AdapterFileError(f"head has {len(parts)} parts: expected name, number of features and classes")
    name, num_features = _name(parts[0], "head"), _typed(parts[1], "head", int)
    values = _typed(parts[2], "head", list)
    if not 2 <= len(values) <= _MAX_TENSORS:
        raise AdapterFileError(f"head has {len(values)} classes: expected between 2 and {_MAX_TENSORS}")
    if not 0 < num_features * len(values) <= _MAX_WEIGHTS:
        raise AdapterFileError(f"head promises {num_features} features of {len(values)} classes: no network has them")
    classes = tuple(_name(value, f"head class {position}") for position, value in enumerate(values))
    if len(set(classes)) != len(classes):
        raise AdapterFileError("the header lists a class of its head twice")
    return HeadEntry(name, num_features, classes)


def _readout(fields: dict[str, Any]) -> ReadoutEntry:
    kind = _get(fields, "kind", str)
    if kind not in LINEAR_KINDS:
        raise AdapterFileError(f"readout {kind!r:.40} is unknown to this smn: update smn-cli")
    dim, num_features, num_images = (_get(fields, key, int) for key in ("dim", "features", "images"))
    entry = ReadoutEntry(kind, dim, num_features, num_images)
    if not 0 < dim <= num_features or dim > _MAX_TENSORS or num_features * dim > _MAX_WEIGHTS:
        raise AdapterFileError(f"readout promises {dim} numbers of {num_features} features: no network has them")
    if kind == "centred" and dim != num_features:
        raise AdapterFileError(f"readout promises {dim} numbers of {num_features} features, centred: expected as many")
    if not 0 < num_images <= _MAX_WEIGHTS:
        raise AdapterFileError(f"readout was fitted to {num_images} images: expected 1 or more")
    if _get(fields, "bits", int) != entry.bits:
        raise AdapterFileError(f"readout is of {fields['bits']} bits: expected {entry.bits} for {kind}")
    return entry
