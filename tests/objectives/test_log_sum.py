"""The loss over very many others, in blocks: value and gradient of the plain one."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from smn_cli.objectives import log_sum
from smn_cli.objectives.log_sum import log_sum_of_others, loss_in_blocks
from smn_cli.objectives.neighbourhood import neighbour_targets, neighbourhood_loss


def unit(num: int, width: int = 6, seed: int = 0) -> Tensor:
    return functional.normalize(torch.randn(num, width, generator=torch.Generator().manual_seed(seed)), dim=1)


@pytest.mark.parametrize("block", [1, 7, 40, 64])
def test_value_and_gradient_are_those_of_the_plain_loss(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_sum, "BLOCK", block)
    memory, positions = unit(40, seed=1).half(), torch.tensor([3, 39, 0, 3])
    places, shares = neighbour_targets(unit(40), perplexity=5, num_neighbours=10)
    plain, blocked = (unit(4, seed=2).requires_grad_() for _ in range(2))
    expected = neighbourhood_loss(plain, memory.float(), positions, places, shares, temperature=0.1)
    own = places[positions].int().long(), shares[positions]
    found = loss_in_blocks(blocked, memory, positions, *own, temperature=0.1)
    torch.testing.assert_close(found, expected)
    (slope,), (expected_slope,) = (
        torch.autograd.grad(3 * loss, at) for loss, at in ((found, blocked), (expected, plain))
    )
    torch.testing.assert_close(slope, expected_slope, rtol=1e-4, atol=1e-5)
    assert float(slope.abs().max()) > 0.1


def test_the_gradient_is_that_of_finite_differences() -> None:
    memory, positions = unit(9, seed=1).double(), torch.tensor([1, 8])

    def total(embeddings: Tensor) -> Tensor:
        logits = (embeddings @ memory.T / 0.3).masked_fill(functional.one_hot(positions, 9).bool(), -torch.inf)
        return logits.logsumexp(dim=1)

    embeddings = unit(2, seed=2).requires_grad_()
    (gradient,) = torch.autograd.grad(log_sum_of_others(embeddings, memory, positions, 0.3).sum(), embeddings)
    step = 1e-5
    for row in range(2):
        for column in range(6):
            moved = embeddings.detach().double().repeat(2, 1, 1)
            moved[0, row, column] += step
            moved[1, row, column] -= step
            slope = float(total(moved[0]).sum() - total(moved[1]).sum()) / (2 * step)
            assert float(gradient[row, column]) == pytest.approx(slope, rel=1e-3, abs=1e-4)
