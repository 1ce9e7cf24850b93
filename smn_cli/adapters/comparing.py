"""Adapters side by side: how far masks agree, and what else differs. NumPy is enough for it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from smn_cli.adapters.stored import StoredAdapter
from smn_cli.errors import MismatchError
from smn_cli.schemas.adapter_files import AgreementJson


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


def check_same_base(adapters: Sequence[StoredAdapter], names: Sequence[str]) -> None:
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


def compare_masks(one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> list[Agreement]:
    """Agreement of every tensor that either masks, by name; one that is not masked keeps all its weights.

    Args:
        one, other: bool arrays by parameter name.

    Raises:
        MismatchError: two masks of one name differ in shape.
    """
    found = []
    for name in sorted({*one, *other}):
        some = one[name] if name in one else other[name]
        first = one.get(name, np.ones_like(some))
        second = other.get(name, np.ones_like(some))
        if first.shape != second.shape:
            raise MismatchError(f"the masks of {name} are {first.shape} and {second.shape}: one file is damaged")
        either_keeps, both_keep = int(np.count_nonzero(first | second)), int(np.count_nonzero(first & second))
        both, either = some.size - either_keeps, some.size - both_keep
        found.append(Agreement(name, some.size, some.size - either + both, both, either))
    return found


def in_all(agreements: Sequence[Agreement]) -> Agreement:
    """All tensors taken as one."""
    counts = ("num_weights", "num_equal", "both_cut", "either_cut")
    return Agreement("all", *(sum(getattr(each, count) for each in agreements) for count in counts))


def differing_settings(one: StoredAdapter, other: StoredAdapter) -> dict[str, tuple[Any, Any]]:
    """What else two adapters differ in: dotted names of header fields to both values, None where there is none."""
    fields = ("arch", "tag", "codec", "adapted_digest")
    flat = [
        {
            **{name: getattr(adapter.header, name) for name in fields},
            **_flattened("preprocessing", adapter.header.preprocessing),
            **_flattened("provenance", adapter.header.provenance),
            **{key: text for key, text in _said(adapter).items() if text},
            **({} if adapter.readout is None else _flattened("readout", adapter.readout.to_json())),
        }
        for adapter in (one, other)
    ]
    return {
        name: (flat[0].get(name), flat[1].get(name))
        for name in sorted({*flat[0], *flat[1]})
        if flat[0].get(name) != flat[1].get(name)
    }


def _said(adapter: StoredAdapter) -> dict[str, str]:
    return {"license": adapter.header.licence, "description": adapter.header.description}


def differing_statistics(one: StoredAdapter, other: StoredAdapter) -> list[str]:
    """Names of carried statistics that only one carries, or with other values."""
    first, second = one.statistics_arrays(), other.statistics_arrays()
    return sorted(
        name
        for name in {*first, *second}
        if name not in first or name not in second or not np.array_equal(first[name], second[name])
    )


def _flattened(prefix: str, values: Any) -> dict[str, Any]:
    if not isinstance(values, dict):
        return {prefix: values}
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat.update(_flattened(f"{prefix}.{key}", value))
    return flat
