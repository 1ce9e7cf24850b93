"""What a checkpoint says is looked at before it is taken over: torch would broadcast it, or fail at the next step."""

from typing import Any

import torch
from torch import Tensor


def check_like(own: Tensor, found: Any, name: str) -> None:
    """Refuse what is no tensor of the same shape and type.

    Raises:
        ValueError: it is something else.
    """
    if not isinstance(found, Tensor) or (found.shape, found.dtype, found.layout) != (own.shape, own.dtype, own.layout):
        what = f"{found.dtype} {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
        raise ValueError(f"{name} is {what}: expected {own.dtype} {tuple(own.shape)}")


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Give an optimiser its state back, but for its settings, which are those of the plan.

    Args:
        optimizer: as the plan makes it.
        state: its `state_dict` of an earlier step.

    Raises:
        KeyError, ValueError, TypeError: it is of other parameters, or not what an optimiser saves.
    """
    before = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
    optimizer.load_state_dict(state)
    for group, settings in zip(optimizer.param_groups, before, strict=True):
        group.update(settings)
        for parameter in group["params"]:
            for name, value in optimizer.state[parameter].items():
                _check_value(parameter, name, value)


def _check_value(parameter: Tensor, name: str, value: Any) -> None:
    if isinstance(value, Tensor) and value.ndim == 0 and value.isfinite():  # the steps that Adam has taken
        return
    if value is not None:
        check_like(parameter, value, f"an optimiser's {name}")
