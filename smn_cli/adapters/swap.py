"""Other tensors in place of a network's own, and the way back, bit for bit.

What was there before is kept with the network, as a plain attribute of tensors: copies and pickles of the network carry
it along and find their own way back, while its state dict, buffers and modules are those of the base.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from smn_cli.adapters.head import StoredHead

_ATTRIBUTE = "_smn_swapped"
"""On a network that wears other tensors: {"originals": tensors by name, "digest": of what they were replaced by}."""


class Change(Protocol):
    """Something that turns a base into an adapted network, and back; `head` is the classifier that comes with it."""

    @property
    def head(self) -> StoredHead | None: ...

    def apply(self, model: nn.Module) -> nn.Module: ...

    def remove(self, model: nn.Module) -> nn.Module: ...


def unwrapped(model: nn.Module) -> nn.Module:
    """The network inside `torch.compile`, `DataParallel` and `DistributedDataParallel`, whose tensors theirs are."""
    while True:
        if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            model = model.module
        elif isinstance(inner := getattr(model, "_orig_mod", None), nn.Module):
            model = inner
        else:
            return model


def original_state(model: nn.Module) -> dict[str, Tensor]:
    """The network's state dict as it is without what was swapped in, on the device and of the type that it has now."""
    network = unwrapped(model)
    state: dict[str, Tensor] = network.state_dict()
    return state | {name: tensor.to(state[name]) for name, tensor in _still_there(_originals(network), state).items()}


def digest_on(model: nn.Module) -> str | None:
    """What `swap_in` was told of the tensors that are on a network; None if nothing was swapped in."""
    record = vars(unwrapped(model)).get(_ATTRIBUTE)
    return None if record is None else str(record["digest"])


def swap_in(model: nn.Module, tensors: Mapping[str, Tensor], *, digest: str = "") -> None:
    """Write tensors over a network's own of the same names, in place of what was swapped in before.

    Args:
        model: keeps its parameter objects; only their values change.
        tensors: by state dict name, of the shapes there.
        digest: tells them from others, see `digest_on`.
    """
    network = unwrapped(model)
    own, known = network.state_dict(keep_vars=True), _originals(network)
    returning = {name: tensor for name, tensor in _still_there(known, own).items() if name not in tensors}
    originals = {name: known[name] if name in known else own[name].detach().clone() for name in tensors}
    # all are on record while they are written, so that an interruption can be undone
    _record(network, {**known, **originals}, digest)
    _write(own, {**returning, **tensors})
    _record(network, originals, digest)


def swap_back(model: nn.Module) -> None:
    """Undo `swap_in` on a network and on those inside it; nothing happens if nothing was swapped in.

    Values are copied into the network's tensors as these are now: exact after a move to another device, rounded after a
    conversion to another type, as the base itself would have been.
    """
    for network in model.modules():
        if _ATTRIBUTE in vars(network):
            own = network.state_dict(keep_vars=True)
            _write(own, _still_there(_originals(network), own))
            del vars(network)[_ATTRIBUTE]


@contextmanager
def swapped_in(model: nn.Module, tensors: Mapping[str, Tensor], *, digest: str = "") -> Iterator[None]:
    """`swap_in` for a while; then the network is as it was, with what was swapped in before, also after an error."""
    network = unwrapped(model)
    worn_digest = digest_on(network)
    worn = {name: network.state_dict()[name].clone() for name in _originals(network)}
    try:
        swap_in(network, tensors, digest=digest)
        yield
    finally:
        swap_back(network)
        if worn_digest is not None:
            swap_in(network, _still_there(worn, network.state_dict()), digest=worn_digest)


def _originals(network: nn.Module) -> dict[str, Tensor]:
    originals: dict[str, Tensor] = vars(network).get(_ATTRIBUTE, {"originals": {}})["originals"]
    return originals


def _record(network: nn.Module, originals: dict[str, Tensor], digest: str) -> None:
    record: dict[str, Any] = {"originals": originals, "digest": digest}
    vars(network)[_ATTRIBUTE] = record


def _still_there(tensors: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without those that a network has lost since, such as a classifier that was taken off or replaced."""
    return {name: each for name, each in tensors.items() if name in state and state[name].shape == each.shape}


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
def _write(own: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        own[name].copy_(tensor)
