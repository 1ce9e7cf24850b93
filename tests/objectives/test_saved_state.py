"""What a checkpoint says is looked at before it is taken over."""

import copy
from typing import Any

import pytest
import torch

from smn_cli.objectives.saved_state import check_like, load_optimizer

Make = type[torch.optim.SGD] | type[torch.optim.Adam]


def trained(kind: Make, lr: float = 0.1) -> tuple[torch.optim.Optimizer, torch.Tensor]:
    """An optimiser after a step, and its parameter."""
    parameter = torch.nn.Parameter(torch.ones(2, 3))
    more: dict[str, Any] = {"momentum": 0.9} if kind is torch.optim.SGD else {}
    optimizer = kind([parameter], lr=lr, **more)
    parameter.grad = torch.arange(6.0).view(2, 3)
    optimizer.step()
    return optimizer, parameter


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam])
def test_an_optimiser_goes_on_with_its_own_settings(kind: Make) -> None:
    (first, _), (second, parameter) = trained(kind), trained(kind, lr=0.5)
    state = copy.deepcopy(first.state_dict())
    state["param_groups"][0]["weight_decay"] = "much"
    load_optimizer(second, state)
    group = second.param_groups[0]
    assert (group["lr"], group["weight_decay"]) == (0.5, 0)
    for name, value in first.state_dict()["state"][0].items():
        assert torch.equal(second.state[parameter][name], value)


@pytest.mark.parametrize("odd", [torch.ones(3), torch.ones(1, 2, 3), "x", 3, torch.tensor(float("nan")), [1]])
@pytest.mark.parametrize(("kind", "name"), [(torch.optim.SGD, "momentum_buffer"), (torch.optim.Adam, "exp_avg")])
def test_a_state_of_another_shape_is_refused(kind: Make, name: str, odd: Any) -> None:
    optimizer, _ = trained(kind)
    state = copy.deepcopy(optimizer.state_dict())
    state["state"][0][name] = odd
    with pytest.raises((ValueError, TypeError), match=f"{name} is|isfinite"):
        load_optimizer(optimizer, state)


@pytest.mark.parametrize(
    "odd", [torch.ones(3), torch.ones(1, 3), torch.ones(2, 3).int(), None, torch.ones(2, 3).to_sparse()]
)
def test_what_torch_would_broadcast_is_refused(odd: Any) -> None:
    with pytest.raises(ValueError, match=r"scores is .*: expected torch\.float32 \(2, 3\)"):
        check_like(torch.zeros(2, 3), odd, "scores")
