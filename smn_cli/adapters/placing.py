"""Where a network has the tensors of an adapter's base: under timm's own names, below a prefix, or only some of them.

timm's `features_only` leaves out what no map needs and renames `stages.0` to `stages_0`; wrappers and detectors put a
network below a name of their own.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from smn_cli.adapters.fingerprint import IGNORED_SUFFIX, Fingerprint
from smn_cli.errors import MismatchError, first_few

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Placement:
    """What a network has of the base that an adapter was made for.

    Attributes:
        prefix: what the network's names begin with; empty if the network is the base itself.
        names: name in the network by name in the base, of all tensors that both have.
        left_out: masked tensors and carried statistics that the network does not have, by their names in the base.
        num_missing: how many tensors of the base the network does not have, in all.
    """

    prefix: str
    names: Mapping[str, str] = field(repr=False)  # hundreds
    left_out: tuple[str, ...]
    num_missing: int

    @property
    def is_whole(self) -> bool:
        """Whether all of the base is there."""
        return not self.num_missing

    def take(self, state: "Mapping[str, Tensor]") -> "dict[str, Tensor]":
        """The base's tensors by their own names, out of the network's state dict."""
        return {name: state[place] for name, place in self.names.items()}

    def in_words(self) -> str:
        """What is left out, for a warning; to be asked only if something is."""
        return (
            f"the network lacks {len(self.left_out)} of the tensors that the adapter changes "
            f"({first_few([*self.left_out])}): left out"
        )


def find_placement(state: "Mapping[str, Tensor]", expected: Fingerprint, changed: Iterable[str]) -> Placement:
    """Find the base in a network by the names that its fingerprint lists; values are not looked at.

    Args:
        state: the network's state dict.
        expected: of the base.
        changed: names of what the adapter changes.

    Returns:
        Where most of it is; names that are there in part are for the caller to compare. With no masked tensor at all
        there, it has no names.

    Raises:
        MismatchError: several networks inside could be meant.
    """
    changed = list(changed)
    own = {name: name for name in state if expected.has(name)}
    whole = Placement("", own, (), len(expected.rows) - len(own))
    if whole.is_whole:
        return whole
    found: dict[str, dict[str, str]] = {}
    for place in state:
        if not place.endswith(IGNORED_SUFFIX):
            for prefix, name in _readings(place, expected):
                found.setdefault(prefix, {}).setdefault(name, place)
    ranked = sorted(found, key=lambda prefix: -len(found[prefix]))
    if not ranked or not found[ranked[0]].keys() & set(changed):
        return replace(whole, names={}, left_out=tuple(changed))
    names = found[ranked[0]]
    for other in ranked[1:]:
        if 2 * len(found[other]) >= len(names) and not _is_same(state, names, found[other]):
            both = " and ".join(repr(prefix.rstrip(".")) for prefix in (ranked[0], other))
            raise MismatchError(
                f"the network holds several that the adapter could be for, {both}: put it on one of these instead"
            )
    left_out = tuple(name for name in changed if name not in names)
    return Placement(ranked[0], names, left_out, len(expected.rows) - len(names))


def _readings(place: str, expected: Fingerprint) -> Iterator[tuple[str, str]]:
    """Every way to read a name in a network as a prefix and a name in the base."""
    start = 0
    while True:
        name = place[start:]
        first, dot, rest = name.partition(".")
        if expected.has(name):
            yield place[:start], name
        for position, letter in enumerate(first):
            if letter == "_" and expected.has(unfolded := f"{first[:position]}.{first[position + 1 :]}{dot}{rest}"):
                yield place[:start], unfolded
        if not dot:
            return
        start += len(first) + 1


def _is_same(state: "Mapping[str, Tensor]", one: Mapping[str, str], other: Mapping[str, str]) -> bool:
    """Whether two places are two names of the same tensors."""
    return all(state[one[name]].data_ptr() == state[place].data_ptr() for name, place in other.items() if name in one)
