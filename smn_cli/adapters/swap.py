"""Other tensors in place of a network's own, and the way back, bit for bit."""

from collections.abc import Mapping
from typing import Protocol
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from smn_cli.adapters.head import StoredHead

_originals: "WeakKeyDictionary[nn.Module, dict[str, Tensor]]" = WeakKeyDictionary()


class Change(Protocol):
    """Something that turns a base into an adapted network, and back; `head` is the classifier that comes with it."""

    @property
    def head(self) -> StoredHead | None: ...

    def apply(self, model: nn.Module) -> nn.Module: ...

    def remove(self, model: nn.Module) -> nn.Module: ...


def original_state(model: nn.Module) -> dict[str, Tensor]:
    """The network's state dict as it is without what was swapped in."""
    return model.state_dict() | _originals.get(model, {})


def swap_in(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors over a network's own of the same names, in place of what was swapped in before."""
    own, known = model.state_dict(keep_vars=True), _originals.get(model, {})
    # what both change is written once, and its original is copied once
    returning = {name: tensor for name, tensor in known.items() if name not in tensors}
    _originals[model] = {name: known[name] if name in known else own[name].detach().clone() for name in tensors}
    _write(model, {**returning, **tensors})


def swap_back(model: nn.Module) -> None:
    """Undo `swap_in`; nothing happens if nothing was swapped in."""
    originals = _originals.pop(model, None)
    if originals is not None:
        _write(model, originals)


class TunedWeights:
    """The full fine-tuning baseline's weights, put on and taken off like an adapter.

    Args:
        tensors: weights and, if adapted, statistics by state dict name.
        head: the classifier of a run with labels.
    """

    def __init__(self, tensors: Mapping[str, Tensor], head: StoredHead | None = None) -> None:
        self._tensors = dict(tensors)
        self.head = head

    def apply(self, model: nn.Module) -> nn.Module:
        """Put the weights in, in place."""
        swap_in(model, self._tensors)
        return model

    def remove(self, model: nn.Module) -> nn.Module:
        """Bring the network back to its base."""
        swap_back(model)
        return model


@torch.no_grad()
def _write(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    own = model.state_dict(keep_vars=True)
    for name, tensor in tensors.items():
        own[name].copy_(tensor)
