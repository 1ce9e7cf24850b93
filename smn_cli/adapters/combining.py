"""New masks out of several adapters'."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from smn_cli.adapters.adapter import Adapter, make_adapter
from smn_cli.adapters.comparing import check_same_base, differing_statistics
from smn_cli.errors import AdapterFileError, UsageError

HOW = ("and", "or", "majority")


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
