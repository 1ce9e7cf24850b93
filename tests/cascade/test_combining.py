"""Combinations: whitened where they whiten, zero where an expert has no say, equal for equal arguments."""

import pytest
import torch
from torch import Tensor

from smn_cli.cascade.combining import KINDS, fit_combination, random_signs, whiten_alone
from smn_cli.errors import DataError, UsageError

NUM_IMAGES, WIDTH, NUM_EXPERTS = 300, 16, 3


def blocks(seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    scales = torch.linspace(0.1, 3, WIDTH)
    return [torch.randn(NUM_IMAGES, WIDTH, generator=generator) * scales + 0.3 for _ in range(NUM_EXPERTS + 1)]


def routes() -> Tensor:
    return torch.arange(NUM_IMAGES) % NUM_EXPERTS


@pytest.mark.parametrize("chosen", [None, routes()])
@pytest.mark.parametrize("kind", ["whitened", "blocks", "pca"])
def test_whitened_components_have_equal_variances_and_do_not_correlate(kind: str, chosen: Tensor | None) -> None:
    combination = fit_combination(blocks(), chosen, kind=kind, dim=24)
    combined = combination.combine(blocks(), chosen)
    assert combined.shape == (NUM_IMAGES, 24)
    covariance = combined.T.double() @ combined.double() / NUM_IMAGES
    assert torch.allclose(covariance.diagonal(), torch.ones(24).double(), atol=1e-4)
    size = 24 if kind != "blocks" else 24 // (NUM_EXPERTS + 1)
    within = covariance[:size, :size] - torch.eye(size).double()
    assert within.abs().max() < 0.05  # eight bits a weight


@pytest.mark.parametrize("kind", KINDS)
def test_an_expert_that_an_image_is_not_sent_to_has_no_say(kind: str) -> None:
    combination = fit_combination(blocks(), routes(), kind=kind, dim=None if kind == "none" else 12)
    changed = blocks()
    for number, block in enumerate(changed[1:]):
        block[routes() != number] = torch.nan
    assert torch.equal(combination.combine(blocks(), routes()), combination.combine(changed, routes()))
    again = fit_combination(changed, routes(), kind=kind, dim=None if kind == "none" else 12)
    assert all(torch.equal(again.tensors[name], tensor) for name, tensor in combination.tensors.items())


def test_blocks_are_zeroed_before_they_are_centred() -> None:
    combined = fit_combination(blocks(), routes(), kind="none").combine(blocks(), routes())
    parts = combined.view(NUM_IMAGES, NUM_EXPERTS + 1, WIDTH).norm(dim=2)
    expected = torch.zeros(NUM_IMAGES, NUM_EXPERTS + 1)
    expected[:, 0] = expected[torch.arange(NUM_IMAGES), routes() + 1] = 1
    assert torch.allclose(parts, expected, atol=1e-6)
    whitened = fit_combination(blocks(), routes(), kind="pca", dim=8).combine(blocks(), routes())
    assert whitened.mean(dim=0).abs().max() < 1e-5  # the centre is that of zeroed blocks


@pytest.mark.parametrize("kind", KINDS)
def test_rows_do_not_depend_on_their_batch(kind: str) -> None:
    combination = fit_combination(blocks(), kind=kind, dim=None if kind == "none" else 12)
    whole = combination.combine(blocks())
    part = combination.combine([block[100:107] for block in blocks()])
    assert torch.allclose(part, whole[100:107], rtol=0, atol=1e-6)
    assert combination.combine([block[:0] for block in blocks()]).shape == (0, combination.dim)


def test_random_signs_are_fixed_and_even() -> None:
    signs = random_signs(64, 48, seed=7, block=1)
    assert set(signs.flatten().tolist()) == {-1.0, 1.0}
    assert abs(float(signs.mean())) < 0.05
    assert not torch.equal(signs, random_signs(64, 48, seed=7, block=2))
    assert random_signs(1, 16, seed=0, block=0).int().tolist() == [FIRST_SIGNS]


# printf 'smn.signs/0/0' | openssl dgst -shake256 -xoflen 2, the lowest bits first
FIRST_SIGNS = [-1, 1, -1, 1, -1, -1, 1, 1, -1, -1, 1, -1, 1, 1, 1, -1]


def test_random_projection_keeps_angles() -> None:
    plain = fit_combination(blocks(), kind="none").combine(blocks())
    projected = fit_combination(blocks(), kind="random", dim=64).combine(blocks())
    centred = plain - plain.mean(dim=0)
    expected, found = (torch.nn.functional.normalize(each, dim=1) for each in (centred, projected))
    difference = (expected @ expected.T - found @ found.T).square().mean().sqrt()
    assert float(difference) < 1.5 / 64**0.5
    assert float(projected.var()) == pytest.approx(1, abs=1e-3)


def test_whitening_alone_is_a_cascade_of_the_dispatcher() -> None:
    features = blocks()[0]
    whitened = whiten_alone(features).combine([features])
    assert whitened.shape == (NUM_IMAGES, WIDTH)
    assert torch.allclose(whitened.var(dim=0, correction=0), torch.ones(WIDTH), atol=1e-4)
    assert torch.equal(whitened, fit_combination([features], kind="pca").combine([features * 2]))


def test_more_components_than_images_tell_apart_are_left_out() -> None:
    few = [block[:5] for block in blocks()]
    assert fit_combination(few, kind="pca").dim == 4
    assert fit_combination(few, kind="blocks").dim == 16
    assert fit_combination(few, kind="whitened").dim == 4


def test_a_triangle_whitens_like_principal_components_in_half_the_bytes() -> None:
    whitened, random = (fit_combination(blocks(), kind=kind, dim=24) for kind in ("whitened", "random"))
    assert whitened.tensors["triangle"].nbytes == 24 * 25 // 2
    projected = random.combine(blocks()).double()
    projected -= projected.mean(dim=0)
    _, sizes, axes = torch.linalg.svd(projected, full_matrices=False)
    expected = torch.nn.functional.normalize(projected @ axes.T / sizes, dim=1)
    found = torch.nn.functional.normalize(whitened.combine(blocks()).double(), dim=1)
    assert float((expected @ expected.T - found @ found.T).abs().max()) < 0.05  # eight bits a weight


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "mean"}, "combination 'mean' is unknown"),
        ({"kind": "none", "dim": 5}, "cannot be chosen"),
        ({"kind": "pca", "dim": 65}, "`dim` 65 is not to be had"),
        ({"kind": "pca", "dim": 0}, "`dim` 0 is not to be had"),
        ({"kind": "blocks", "dim": 3}, "`dim` 3 is not to be had"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        fit_combination(blocks(), **settings)  # type: ignore[arg-type]


def test_wrong_blocks_and_routes_are_refused() -> None:
    combination = fit_combination(blocks(), routes())
    with pytest.raises(UsageError, match="needs routes"):
        combination.combine(blocks())
    with pytest.raises(UsageError, match="takes no routes"):
        fit_combination(blocks()).combine(blocks(), routes())
    with pytest.raises(UsageError, match="3 blocks of 16 features: this combination takes 4"):
        combination.combine(blocks()[:3], routes() % 2)
    with pytest.raises(UsageError, match="one of 3 experts for each of 300 images"):
        combination.combine(blocks(), routes() + 1)
    with pytest.raises(DataError, match="infinite or not numbers"):
        fit_combination([torch.full((4, 2), torch.inf)] * 2)
    with pytest.raises(DataError, match="the same features"):
        fit_combination([torch.ones(4, 2)] * 2, kind="random")
