"""Colour and blur for many images at once, each by its own amount.

Pixels are float32 levels (N, 3, H, W) from 0 to 255, on any device. What the steps mean is torchvision's definition,
image by image; only the loop over images is gone.
"""

import torch
from torch import Tensor

WHITE = 255.0
_RED, _GREEN, _BLUE = 0.2989, 0.587, 0.114


def grey(pixels: Tensor) -> Tensor:
    """Luma (N, 1, H, W) of the images."""
    red, green, blue = pixels.unbind(dim=1)
    return red.mul(_RED).add_(green, alpha=_GREEN).add_(blue, alpha=_BLUE)[:, None]


def solarize(pixels: Tensor, threshold: float = 128.0) -> Tensor:
    """Invert all levels of `threshold` or more."""
    return torch.where(pixels >= threshold, WHITE - pixels, pixels)


def brighten(pixels: Tensor, factors: Tensor) -> Tensor:
    """Scale all levels by `factors` (N,), 0 or more; 1 changes nothing, here and in what follows."""
    return pixels.mul_(_each(factors)).clamp_(max=WHITE)


def contrast(pixels: Tensor, factors: Tensor) -> Tensor:
    """Move all levels away from the image's mean luma by `factors` (N,), 0 or more."""
    amounts = _each(factors)
    luma = grey(pixels.mean(dim=(2, 3), keepdim=True))
    return torch.addcmul(luma * (1 - amounts), pixels, amounts).clamp_(0, WHITE)


def saturate(pixels: Tensor, factors: Tensor) -> Tensor:
    """Move all colours away from their own grey by `factors` (N,), 0 or more."""
    amounts = _each(factors)
    return torch.addcmul(grey(pixels).mul_(1 - amounts), pixels, amounts).clamp_(0, WHITE)


def turn_hue(pixels: Tensor, turns: Tensor) -> Tensor:
    """Turn the hue of HSV by `turns` (N,) of the colour circle, -.5 to .5; 0 changes nothing."""
    red, green, blue = pixels.unbind(dim=1)
    high = torch.maximum(torch.maximum(red, green), blue)
    low = torch.minimum(torch.minimum(red, green), blue)
    span = high - low
    # the hue in sixths of the circle, 0 at red, as numerator over the span
    from_green = (blue - red).add_(span, alpha=2)
    from_blue = (red - green).add_(span, alpha=4)
    numerator = torch.where(green == high, from_green, from_blue)
    sixths = torch.where(red == high, green - blue, numerator).div_(span.clamp_min(1e-6))
    sixths.add_(6 * turns[:, None, None])
    sixths.sub_(torch.floor(sixths / 6), alpha=6)
    # along the circle a primary is full within one sixth of its own hue, gone two sixths away, linear between
    turned = torch.empty_like(pixels)
    for channel, (opposite_or_own, start, sign) in enumerate(((3, low, 1), (2, high, -1), (4, high, -1))):
        distance = (sixths - opposite_or_own).abs_().sub_(1).clamp_(0, 1)
        torch.addcmul(start, span, distance, value=sign, out=turned[:, channel])
    return turned


def blur(pixels: Tensor, sigmas: Tensor, taps: int) -> Tensor:
    """Gaussian blur of deviations `sigmas` (N,) px > 0 over `taps` pixels, odd; the border is reflected.

    As two matrix products: at the sizes of views that is faster than a convolution with a kernel for every image.
    The images are square.
    """
    num_images, num_channels, side, _ = pixels.shape
    matrix = _blur_matrix(side, sigmas, taps)
    along_rows = pixels.reshape(num_images, num_channels * side, side) @ matrix.transpose(1, 2)
    return matrix[:, None] @ along_rows.view(pixels.shape)


def _blur_matrix(size: int, sigmas: Tensor, taps: int) -> Tensor:
    """(N, size, size): row i holds what every pixel of a line adds to the blurred pixel i."""
    # torchvision lays its taps sqrt(2) closer than a pixel apart and drops the 1/2 of the exponent: the same Gaussian
    offsets = torch.arange(taps, device=sigmas.device) - taps // 2
    kernel = torch.softmax(-((offsets / sigmas[:, None]) ** 2) / 2, dim=1)
    place = torch.arange(size, device=sigmas.device)
    source = (place[:, None] + offsets).abs()
    source = (size - 1) - (size - 1 - source).abs()
    matrix = kernel.new_zeros(len(sigmas), size, size)
    return matrix.scatter_add_(2, source.expand(len(sigmas), -1, -1), kernel[:, None].expand(-1, size, -1))


def _each(values: Tensor) -> Tensor:
    return values[:, None, None, None]
