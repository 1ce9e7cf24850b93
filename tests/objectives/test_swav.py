"""Codes, swapped loss, head and queue are those of SwAV (arXiv 2006.09882, section 3)."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from smn_cli.objectives.swav import ProjectionHead, Queue, codes_of_views, sinkhorn, swapped_loss
from tests import oracles

EPSILON, TEMPERATURE, ITERATIONS = 0.05, 0.1, 3


def cosines(num_samples: int, num_prototypes: int, seed: int = 0) -> Tensor:
    """Logits as a head makes them: cosines of random embeddings with random prototypes."""
    generator = torch.Generator().manual_seed(seed)
    embeddings = functional.normalize(torch.randn(num_samples, 6, generator=generator), dim=1)
    prototypes = functional.normalize(torch.randn(num_prototypes, 6, generator=generator), dim=1)
    return embeddings @ prototypes.T


def codes_for(logits: Tensor, *, epsilon: float = EPSILON, iterations: int = ITERATIONS) -> Tensor:
    return sinkhorn(logits, epsilon=epsilon, iterations=iterations)


@pytest.mark.parametrize("shape", [(16, 5), (4, 9), (1, 3), (7, 1)])
@pytest.mark.parametrize("iterations", [1, 3, 10])
def test_codes_are_the_oracles(shape: tuple[int, int], iterations: int) -> None:
    logits = cosines(*shape)
    expected = oracles.sinkhorn(logits.double().numpy(), EPSILON, iterations)
    # logits / epsilon reach 20, of which float32 keeps 1e-6, and exp makes that relative
    np.testing.assert_allclose(codes_for(logits, iterations=iterations).numpy(), expected, rtol=2e-5, atol=1e-9)


@pytest.mark.parametrize("epsilon", [1.0, 0.05, 0.003])
def test_codes_of_each_sample_sum_to_one(epsilon: float) -> None:
    codes = codes_for(cosines(32, 8), epsilon=epsilon)
    torch.testing.assert_close(codes.sum(dim=1), torch.ones(32), rtol=0, atol=1e-5)
    assert bool((codes >= 0).all())


def test_prototypes_share_the_samples_evenly_as_iterations_grow() -> None:
    logits = cosines(40, 8)
    errors = [float((codes_for(logits, iterations=n).sum(dim=0) - 40 / 8).abs().max()) for n in (1, 3, 10, 100, 1000)]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 1
    assert errors[-1] < 1e-3


def test_codes_do_not_change_when_a_constant_is_added_to_the_logits() -> None:
    logits = cosines(12, 5)
    torch.testing.assert_close(codes_for(logits + 0.75), codes_for(logits), rtol=1e-4, atol=1e-6)


def test_codes_follow_a_permutation_of_samples_and_of_prototypes() -> None:
    logits = cosines(12, 5)
    samples, prototypes = torch.randperm(12), torch.randperm(5)
    expected = codes_for(logits)
    torch.testing.assert_close(codes_for(logits[samples]), expected[samples], rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(codes_for(logits[:, prototypes]), expected[:, prototypes], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("epsilon", [1e-3, 1e-5, 1e-8])
def test_codes_stay_finite_at_a_tiny_epsilon(epsilon: float) -> None:
    codes = codes_for(cosines(16, 6), epsilon=epsilon)
    assert bool(codes.isfinite().all())
    assert codes.sum(dim=1).tolist() == pytest.approx([1.0] * 16, abs=0.05)


def test_codes_stay_finite_with_a_prototype_that_nobody_is_near() -> None:
    logits = cosines(16, 6)
    logits[:, 3] = -1.0
    logits[:, [0, 1, 2, 4, 5]] = logits[:, [0, 1, 2, 4, 5]].clamp_min(0.5)
    # exp((-1 - 1) / 0.01) is zero in float32
    codes = codes_for(logits, epsilon=0.01)
    assert bool(codes.isfinite().all())
    assert float(codes[:, 3].sum()) > 0.5
    torch.testing.assert_close(codes.sum(dim=1), torch.ones(16), rtol=0, atol=1e-4)


def test_codes_carry_no_gradient() -> None:
    assert not codes_for(cosines(4, 3).requires_grad_()).requires_grad


def test_codes_of_half_precision_logits_are_computed_in_float32() -> None:
    logits = cosines(8, 4).half()
    assert torch.equal(codes_for(logits), codes_for(logits.float()))


def random_codes(num_samples: int, num_prototypes: int, seed: int) -> Tensor:
    return codes_for(cosines(num_samples, num_prototypes, seed), epsilon=0.3)


@pytest.mark.parametrize("num_views", [2, 3, 6])
def test_the_loss_is_the_oracles(num_views: int) -> None:
    logits = [cosines(9, 5, seed) for seed in range(num_views)]
    codes = [random_codes(9, 5, 100), random_codes(9, 5, 101)]
    expected = oracles.swapped_loss(
        [view.double().numpy() for view in logits], [code.double().numpy() for code in codes], TEMPERATURE
    )
    assert float(swapped_loss(logits, codes, temperature=TEMPERATURE)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("num_prototypes", [2, 7, 500])
def test_uniform_predictions_give_the_log_of_the_number_of_prototypes(num_prototypes: int) -> None:
    codes = [random_codes(6, num_prototypes, seed) for seed in (0, 1)]
    logits = [torch.full((6, num_prototypes), 0.3)] * 4
    loss = swapped_loss(logits, codes, temperature=TEMPERATURE)
    assert float(loss) == pytest.approx(math.log(num_prototypes), rel=1e-5)


def test_the_loss_is_never_below_the_entropy_of_the_codes_and_reaches_it() -> None:
    codes = [random_codes(8, 4, 0), random_codes(8, 4, 1)]
    least = np.mean([oracles.entropy(code.double().numpy()) for code in codes])
    for seed in range(20):
        logits = [cosines(8, 4, seed + view) for view in range(3)]
        assert float(swapped_loss(logits, codes, temperature=TEMPERATURE)) >= least
    # two views that each predict the other's codes exactly
    perfect = [TEMPERATURE * codes[1].log(), TEMPERATURE * codes[0].log()]
    assert float(swapped_loss(perfect, codes, temperature=TEMPERATURE)) == pytest.approx(float(least), rel=1e-5)


def test_the_loss_is_symmetric_in_the_two_code_views() -> None:
    first, second, third = (cosines(8, 4, seed) for seed in range(3))
    codes = [random_codes(8, 4, 10), random_codes(8, 4, 11)]
    there = swapped_loss([first, second, third], codes, temperature=TEMPERATURE)
    back = swapped_loss([second, first, third], codes[::-1], temperature=TEMPERATURE)
    assert float(there) == pytest.approx(float(back), rel=1e-6)
    assert float(there) != pytest.approx(float(swapped_loss([second, first, third], codes, temperature=TEMPERATURE)))


def test_no_view_predicts_its_own_codes() -> None:
    logits = [cosines(8, 4, seed).requires_grad_() for seed in range(3)]
    swapped_loss(logits, [random_codes(8, 4, 10)], temperature=TEMPERATURE).backward()  # type: ignore[no-untyped-call]
    assert logits[0].grad is None
    assert all(isinstance(view.grad, Tensor) and bool(view.grad.any()) for view in logits[1:])


def head_with(num_features: int = 5, embedding_dim: int = 4, num_prototypes: int = 3) -> ProjectionHead:
    return ProjectionHead(num_features, embedding_dim, num_prototypes)


def test_logits_are_cosines_of_the_projected_features_with_the_prototypes() -> None:
    head, features = head_with(), torch.randn(6, 5)
    embeddings, logits = head(features)
    projected = features @ head.projection.weight.T + head.projection.bias
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(6))
    torch.testing.assert_close(
        logits, functional.cosine_similarity(projected[:, None], head.prototypes.weight[None], dim=2)
    )


def test_normalised_prototypes_have_unit_length_and_their_old_direction() -> None:
    head = head_with()
    with torch.no_grad():
        head.prototypes.weight.mul_(torch.tensor([[3.0], [0.2], [7.0]]))
    before = head.prototypes.weight.detach().clone()
    head.normalize_prototypes()
    torch.testing.assert_close(head.prototypes.weight.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(
        functional.cosine_similarity(head.prototypes.weight, before, dim=1), torch.ones(3), rtol=1e-6, atol=0
    )


def batch(value: float, num_samples: int = 2) -> Tensor:
    """Embeddings that can be told apart: row i is (value, i)."""
    return torch.tensor([[value, float(row)] for row in range(num_samples)])


def test_the_queue_holds_the_newest_first_and_forgets_the_oldest_by_view() -> None:
    queue = Queue(2, 4, 2, torch.device("cpu"))
    for step in (1.0, 2.0, 3.0):
        queue.push([batch(step), batch(-step)])
    assert queue.embeddings.tolist() == [
        [[3.0, 0.0], [3.0, 1.0], [2.0, 0.0], [2.0, 1.0]],
        [[-3.0, 0.0], [-3.0, 1.0], [-2.0, 0.0], [-2.0, 1.0]],
    ]


def test_the_queue_is_full_only_when_every_row_has_been_pushed() -> None:
    queue = Queue(1, 6, 2, torch.device("cpu"))
    seen = [queue.is_full]
    for step in range(4):
        queue.push([batch(step)])
        seen.append(queue.is_full)
    assert seen == [False, False, False, True, True]


def test_a_queue_of_length_zero_is_never_full_and_takes_nothing() -> None:
    queue = Queue(1, 0, 2, torch.device("cpu"))
    queue.push([batch(1.0)])
    assert (queue.is_full, queue.num_filled, tuple(queue.embeddings.shape)) == (False, 0, (1, 0, 2))


def filled_queue(head: ProjectionHead, num_pushes: int) -> Queue:
    queue = Queue(2, 8, 4, torch.device("cpu"))
    for _ in range(num_pushes):
        queue.push([functional.normalize(torch.randn(4, 4), dim=1) for _ in range(2)])
    return queue


def test_a_queue_that_is_not_full_leaves_the_codes_alone() -> None:
    head, logits = head_with(), [cosines(4, 3, 0), cosines(4, 3, 1)]
    codes = codes_of_views(logits, head, filled_queue(head, 1), epsilon=EPSILON, iterations=ITERATIONS)
    assert all(torch.equal(code, codes_for(view)) for code, view in zip(codes, logits, strict=True))


def test_a_full_queue_shapes_the_codes_under_the_current_prototypes_but_adds_no_row() -> None:
    head, logits = head_with(), [cosines(4, 3, 0), cosines(4, 3, 1)]
    queue = filled_queue(head, 2)
    with torch.no_grad():
        head.prototypes.weight.copy_(functional.normalize(torch.randn(3, 4), dim=1))
    codes = codes_of_views(logits, head, queue, epsilon=EPSILON, iterations=ITERATIONS)
    for view, code in enumerate(codes):
        together = torch.cat([logits[view], queue.embeddings[view] @ head.prototypes.weight.detach().T])
        expected = oracles.sinkhorn(together.double().numpy(), EPSILON, ITERATIONS)[:4]
        np.testing.assert_allclose(code.numpy(), expected, rtol=2e-5, atol=1e-9)
        assert float((code - codes_for(logits[view])).abs().max()) > 0.01


def test_pushing_keeps_no_gradient() -> None:
    queue = Queue(1, 2, 2, torch.device("cpu"))
    queue.push([batch(1.0).requires_grad_()])
    assert not queue.embeddings.requires_grad
