"""Adapters side by side and put together: how far masks agree, and new masks out of several."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from smn_cli.adapters.adapter import Adapter, make_adapter
from smn_cli.errors import AdapterFileError, MismatchError, UsageError
from smn_cli.schemas.adapter_files import AgreementJson

HOW = ("and", "or", "majority")


@dataclass(frozen=True)
class Agreement:
    """Two masks of one tensor, or of a network, bit by bit.

    `both_cut` and `either_cut` count weights; an only mask that cuts nothing agrees with another such one by 1.
    """

    name: str
    num_weights: int
    num_equal: int
    both_cut: int
    either_cut: int

    @property
    def agreement(self) -> float:
        """Share of weights that both keep or both cut."""
        return self.num_equal / self.num_weights

    @property
    def jaccard(self) -> float:
        """Weights that both cut over weights that either cuts; 1 if neither cuts any."""
        return self.both_cut / self.either_cut if self.either_cut else 1.0

    def to_json(self) -> AgreementJson:
        """All numbers, for --json."""
        return {
            "name": self.name,
            "weights": self.num_weights,
            "both_cut": self.both_cut,
            "either_cut": self.either_cut,
            "agreement": self.agreement,
            "jaccard": self.jaccard,
        }


def needs_base(adapters: Sequence[Adapter]) -> bool:
    """Whether any of them needs the base's weights to decode."""
    return any(adapter.header.needs_base for adapter in adapters)


def shapes_as_base(adapter: Adapter) -> dict[str, Tensor]:
    """Something of a base's shapes, without any memory of it, for codecs that do not look at the base."""
    return {entry.name: torch.zeros(()).expand(entry.shape) for entry in adapter.header.masks}


def check_same_base(adapters: Sequence[Adapter], names: Sequence[str]) -> None:
    """Refuse adapters of different bases.

    Args:
        adapters: two or more.
        names: what to call each in the message.

    Raises:
        MismatchError: says which two differ.
    """
    first = adapters[0]
    for adapter, name in zip(adapters[1:], names[1:], strict=True):
        if adapter.header.base_digest != first.header.base_digest:
            raise MismatchError(
                f"{names[0]} and {name} are for different bases: {first.made_for} ({first.header.base_digest[:12]}...) "
                f"and {adapter.made_for} ({adapter.header.base_digest[:12]}...)"
            )


def compare_masks(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> list[Agreement]:
    """Agreement of every tensor that either masks, by name; one that is not masked keeps all its weights."""
    found = []
    for name in sorted({*one, *other}):
        some = one[name] if name in one else other[name]
        first = one.get(name, torch.ones_like(some))
        second = other.get(name, torch.ones_like(some))
        both, either = int((~first & ~second).sum()), int((~first | ~second).sum())
        found.append(Agreement(name, some.numel(), some.numel() - either + both, both, either))
    return found


def in_all(agreements: Sequence[Agreement]) -> Agreement:
    """All tensors taken as one."""
    counts = ("num_weights", "num_equal", "both_cut", "either_cut")
    return Agreement("all", *(sum(getattr(each, count) for each in agreements) for count in counts))


def differing_settings(one: Adapter, other: Adapter) -> dict[str, tuple[Any, Any]]:
    """What else two adapters differ in: dotted names of header fields to both values, None where there is none."""
    fields = ("arch", "tag", "codec", "adapted_digest")
    flat = [
        {
            **{name: getattr(adapter.header, name) for name in fields},
            **_flattened("preprocessing", adapter.header.preprocessing),
            **_flattened("provenance", adapter.header.provenance),
            **({} if adapter.readout is None else _flattened("readout", adapter.readout.to_json())),
        }
        for adapter in (one, other)
    ]
    return {
        name: (flat[0].get(name), flat[1].get(name))
        for name in sorted({*flat[0], *flat[1]})
        if flat[0].get(name) != flat[1].get(name)
    }


def differing_statistics(one: Adapter, other: Adapter) -> list[str]:
    """Names of carried statistics that only one carries, or with other values."""
    first, second = one.statistics(), other.statistics()
    return sorted(
        name
        for name in {*first, *second}
        if name not in first or name not in second or not torch.equal(first[name], second[name])
    )


def merge_masks(masks: Sequence[Mapping[str, Tensor]], how: str) -> dict[str, Tensor]:
    """One mask out of several.

    Args:
        masks: of one base; a tensor that is not masked keeps all its weights.
        how: "and" keeps what all keep, "or" what any keeps, "majority" what more than half of them keep.

    Raises:
        UsageError: unknown way, or a merged mask would be empty.
    """
    if how not in HOW:
        raise UsageError(f"`how` {how} is unknown: expected one of {', '.join(HOW)}")
    needed = {"and": len(masks), "or": 1, "majority": len(masks) // 2 + 1}[how]
    merged = {}
    for name in sorted({name for each in masks for name in each}):
        votes = sum(each[name].to(torch.int32) if name in each else torch.tensor(1) for each in masks)
        merged[name] = torch.as_tensor(votes) >= needed
        if not merged[name].any():
            raise UsageError(f"`how` {how} leaves no weight of {name}: try `how` or")
    return merged


def merge(adapters: Sequence[Adapter], names: Sequence[str], base: Mapping[str, Tensor], *, how: str) -> Adapter:
    """Adapter of merged masks over the base of all of them.

    Args:
        adapters: two or more without carried statistics, which cannot be merged, or all with the same ones.
        names: what to call each in messages.
        base: state dict of their base; each adapter is checked against it.
        how: see `merge_masks`.

    Raises:
        MismatchError: they, or the base given, are of different bases.
        UsageError: unknown way, fewer than two adapters, statistics that differ, or an empty mask.
        AdapterFileError: a file does not rebuild what it recorded.
    """
    if len(adapters) < 2:
        raise UsageError("smn merge needs two or more adapters")
    check_same_base(adapters, names)
    for adapter, name in zip(adapters[1:], names[1:], strict=True):
        if differing_statistics(adapters[0], adapter):
            raise UsageError(f"{names[0]} and {name} carry different normalisation statistics: these cannot be merged")
    for adapter, name in zip(adapters, names, strict=True):
        try:
            adapter.rebuild(base)
        except AdapterFileError as error:
            raise AdapterFileError(f"{name}: {error}") from None
    first = adapters[0]
    known = {name: tensor for name, tensor in base.items() if first.base_fingerprint.has(name)}
    digests = [adapter.header.adapted_digest for adapter in adapters]
    return make_adapter(
        known,
        merge_masks([adapter.masks(base) for adapter in adapters], how),
        arch=first.header.arch,
        tag=first.header.tag,
        norm_stats={name: values.view(base[name].shape) for name, values in first.statistics().items()},
        preprocessing=first.header.preprocessing,
        provenance={"merged": digests, "how": how},
    )


def _flattened(prefix: str, values: Any) -> dict[str, Any]:
    if not isinstance(values, dict):
        return {prefix: values}
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat.update(_flattened(f"{prefix}.{key}", value))
    return flat
