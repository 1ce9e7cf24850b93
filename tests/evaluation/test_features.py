"""Features of batches: written in place, in float32 whatever the network computes in."""

import pytest
import torch
from torch import Tensor, nn

from smn_cli.evaluation.features import extract_features, on_device


def network() -> nn.Module:
    """Small, with seeded weights."""
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 5)).eval()


def batches(num_images: int) -> list[Tensor]:
    """Images in batches of three."""
    return list(torch.split(torch.randn(num_images, 3, 8, 8, generator=torch.Generator().manual_seed(2)), 3))


@pytest.mark.parametrize("num_images", [1, 3, 7])
def test_a_known_number_of_images_changes_no_bit(num_images: int) -> None:
    run = on_device(network(), torch.device("cpu"))
    known = extract_features(run, batches(num_images), num_images=num_images)
    assert torch.equal(known, extract_features(run, batches(num_images)))
    assert known.shape == (num_images, 5)


@pytest.mark.parametrize("claimed", [8, 9])
def test_fewer_images_than_claimed_are_told(claimed: int) -> None:
    with pytest.raises(ValueError, match=f"expected {claimed} images, found 7"):
        extract_features(network(), batches(7), num_images=claimed)


def test_bf16_gives_nearly_the_same_features_as_float32() -> None:
    run = network()
    exact = extract_features(on_device(run, torch.device("cpu"), "fp32"), batches(7))
    rounded = extract_features(on_device(run, torch.device("cpu"), "bf16"), batches(7))
    assert (exact.dtype, rounded.dtype) == (torch.float32, torch.float32)
    assert not torch.equal(exact, rounded)
    # eight bits of mantissa, in two layers
    torch.testing.assert_close(rounded, exact, rtol=0.02, atol=0.02)
