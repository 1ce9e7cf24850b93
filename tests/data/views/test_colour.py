"""Every step on many images is torchvision's step on each of them."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional

from smn_cli.data.views import colour

NUM_IMAGES = 12


@pytest.fixture
def images() -> Tensor:
    """Noise, black, white, grey, nearly grey, pure and mixed primaries; (N, 3, 18, 18) from 0 to 1."""
    images = torch.rand(NUM_IMAGES, 3, 18, 18, generator=torch.Generator().manual_seed(0))
    images[0], images[1], images[2] = 0, 1, 0.4
    images[3, :, :6] = torch.tensor([1.0, 0, 0]).view(3, 1, 1)
    images[3, :, 6:12] = torch.tensor([0, 1.0, 1.0]).view(3, 1, 1)
    images[3, :, 12:] = torch.tensor([0.5, 0, 0.5]).view(3, 1, 1)
    images[4] = 0.5 + 0.002 * images[4]
    return images


def amounts(least: float, most: float) -> Tensor:
    """One per image, from least to most."""
    return torch.linspace(least, most, NUM_IMAGES)


def assert_alike(found: Tensor, images: Tensor, step: Callable[[Tensor, float], Tensor], values: Tensor) -> None:
    """Equal to torchvision's step on one image after the other, within a thousandth of a level."""
    expected = torch.stack([step(image, float(value)) for image, value in zip(images, values, strict=True)])
    torch.testing.assert_close(found, expected * 255, rtol=0, atol=1e-3)


def test_brightness(images: Tensor) -> None:
    factors = amounts(0, 1.9)
    assert_alike(colour.brighten(images * 255, factors), images, functional.adjust_brightness, factors)


def test_contrast(images: Tensor) -> None:
    factors = amounts(0, 1.9)
    assert_alike(colour.contrast(images * 255, factors), images, functional.adjust_contrast, factors)


def test_saturation(images: Tensor) -> None:
    factors = amounts(0, 1.9)
    assert_alike(colour.saturate(images * 255, factors), images, functional.adjust_saturation, factors)


@pytest.mark.parametrize(("least", "most"), [(-0.5, 0.5), (0.5, -0.5), (0.0, 0.0), (1 / 3, 1 / 3), (-1 / 6, -1 / 6)])
def test_hue(least: float, most: float, images: Tensor) -> None:
    turns = amounts(least, most)
    assert_alike(colour.turn_hue(images * 255, turns), images, functional.adjust_hue, turns)


def test_grey(images: Tensor) -> None:
    assert_alike(
        colour.grey(images * 255), images, lambda image, _: functional.rgb_to_grayscale(image), torch.zeros(NUM_IMAGES)
    )


@pytest.mark.parametrize("taps", [3, 5, 9, 13])
def test_blur(taps: int, images: Tensor) -> None:
    def blurred(image: Tensor, sigma: float) -> Tensor:
        done: Tensor = functional.gaussian_blur(image, [taps, taps], [sigma, sigma])
        return done

    sigmas = amounts(0.1, 2.0)
    assert_alike(colour.blur(images * 255, sigmas, taps), images, blurred, sigmas)
