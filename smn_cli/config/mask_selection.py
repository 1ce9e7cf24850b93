"""What `--mask-only` says: which weights a mask may cut."""

from dataclasses import dataclass
from typing import Literal

from smn_cli.errors import UsageError

Draw = Literal["random", "largest", "smallest"]
_EXPECTED = "blocks:N, late:P, name:PATTERN, all-but:PATTERN, random:P, largest:P or smallest:P"
MIN_SHARE = 1e-6
"""Fractions of a tensor are counted in millionths."""


@dataclass(frozen=True)
class Selection:
    """Weights that a mask may cut; every other one is kept for ever.

    Attributes:
        names: patterns of parameter names that take the place of the recipe's choice; empty to leave that.
        all_but: patterns of names that are left out.
        num_blocks: how many blocks from the first on; None for all of the network.
        draw, share: which part of every tensor, as a fraction above 0 and at most 1; None for the whole.
        trunk_share: the first blocks are left out as long as they hold at most this share of the weights; 0 for none.
    """

    names: tuple[str, ...] = ()
    all_but: tuple[str, ...] = ()
    num_blocks: int | None = None
    draw: Draw | None = None
    share: float = 1.0
    trunk_share: float = 0.0


def parse_selection(specs: tuple[str, ...]) -> Selection:
    """What several `--mask-only` say together: names add up, everything else narrows them.

    Raises:
        UsageError: one of them is not understood, or two exclude each other.
    """
    names: list[str] = []
    all_but: list[str] = []
    blocks: list[int] = []
    trunks: list[float] = []
    draws: list[tuple[Draw, float]] = []
    for spec in specs:
        kind, _, value = spec.partition(":")
        if kind == "name" and value:
            names.append(value)
        elif kind == "all-but" and value:
            all_but.append(value)
        elif kind == "blocks" and value.isascii() and value.isdecimal() and int(value):
            blocks.append(int(value))
        elif kind == "late":
            trunks.append(_share(spec, value, minimum=0.0))
        elif kind in ("random", "largest", "smallest"):
            draws.append((kind, _share(spec, value)))  # type: ignore[arg-type]  # one of the three
        else:
            raise UsageError(f"`mask_only` {spec}: expected {_EXPECTED}")
    if len(blocks) + len(trunks) > 1 or len(draws) > 1:
        raise UsageError("`mask_only`: give one of blocks and late, and one of random, largest and smallest")
    draw, share = draws[0] if draws else (None, 1.0)
    num_blocks, trunk_share = (blocks[0] if blocks else None), (trunks[0] if trunks else 0.0)
    return Selection(tuple(names), tuple(all_but), num_blocks, draw, share, trunk_share)


def _share(spec: str, value: str, minimum: float = MIN_SHARE) -> float:
    try:
        share = float(value)
    except ValueError:
        share = -1.0
    if not minimum <= share <= 1:
        least = "above 0" if minimum else "from 0"
        raise UsageError(f"`mask_only` {spec}: expected a fraction {least} and at most 1, such as 0.25")
    return share
