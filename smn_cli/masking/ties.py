"""Tensors that a network holds under several names, as CoaT does with the position convolutions that its blocks share.

Such a tensor has one mask. Scores, masks and statistics of a run go by its first name, the one that `named_parameters`
gives it; an adapter has them under all of its names, as the network's state dict has the tensor.
"""

from collections.abc import Iterable, Mapping
from itertools import chain
from typing import TypeVar

import torch
from torch import Tensor, nn

from smn_cli.errors import AdapterFileError

T = TypeVar("T")


def tied_names(network: nn.Module) -> dict[str, tuple[str, ...]]:
    """All names of every parameter and buffer that has more than one, by its first name; empty for most networks."""
    names: dict[int, list[str]] = {}
    parameters, buffers = (
        network.named_parameters(remove_duplicate=False),
        network.named_buffers(remove_duplicate=False),
    )
    for name, tensor in chain(parameters, buffers):
        names.setdefault(id(tensor), []).append(name)
    return {found[0]: tuple(found) for found in names.values() if len(found) > 1}


def in_every_place(tensors: Mapping[str, T], network: nn.Module) -> dict[str, T]:
    """What is known by first names, by one name for each attribute of a module that holds the tensor.

    This is what `functional_call` wants with `tie_weights=False`. Left to tie them itself, it puts a tensor of a module
    that is shared as a whole into the same attribute twice, takes its own replacement for the original, and leaves it
    there for ever (torch 2.14).
    """
    places: dict[int, list[str]] = {}
    for module_name, module in network.named_modules():  # each module once
        for name, tensor in chain(module._parameters.items(), module._buffers.items()):
            if tensor is not None:
                places.setdefault(id(tensor), []).append(f"{module_name}.{name}" if module_name else name)
    several = {names[0]: names for names in places.values() if len(names) > 1}
    return {place: tensor for name, tensor in tensors.items() for place in several.get(name, (name,))}


def under_all_names(tensors: Mapping[str, T], network: nn.Module) -> dict[str, T]:
    """What is known by first names, by every name; the same mapping if the network ties nothing."""
    tied = tied_names(network)
    return {alias: tensor for name, tensor in tensors.items() for alias in tied.get(name, (name,))}


def under_first_names(tensors: Mapping[str, T], network: nn.Module) -> dict[str, T]:
    """Inverse of `under_all_names`."""
    others = {alias for names in tied_names(network).values() for alias in names[1:]}
    return {name: tensor for name, tensor in tensors.items() if name not in others}


def check_tied_alike(base: Mapping[str, Tensor], adapted: Mapping[str, Tensor], changed: Iterable[str]) -> None:
    """Refuse tensors that are one in the base and differ in the adapted network, of which a file could hold one only.

    Args:
        base: a network's state dict, whose tied tensors lie in the same memory.
        adapted: new tensors by the same names.
        changed: the names that may differ from the base.

    Raises:
        AdapterFileError: names two of one tensor.
    """
    places: dict[tuple[object, ...], list[str]] = {}
    for name, tensor in base.items():
        if tensor.numel() and not tensor.is_meta:
            places.setdefault((tensor.device, tensor.data_ptr(), tensor.shape, tensor.stride()), []).append(name)
    changed = set(changed)
    for names in places.values():
        if len(names) < 2 or changed.isdisjoint(names):
            continue
        for other in names[1:]:
            if not torch.equal(adapted[names[0]], adapted[other]):
                raise AdapterFileError(
                    f"the adapter masks {names[0]} unlike {other}, which are one tensor of the network: an earlier smn "
                    "made it; pack its run again"
                )
