"""What happens to views after they are cut: flip, colour jitter, grey, blur, solarize; batched, on the device.

Every view draws for itself, with the distribution of torchvision's RandomHorizontalFlip, ColorJitter, RandomGrayscale
and GaussianBlur in a row, which is the order of SwAV (arXiv 2006.09882).
"""

from collections.abc import Iterator
from itertools import permutations
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from smn_cli.data.views import colour
from smn_cli.recipes import ViewPlan

CHUNK = 1 << 18
"""Numbers worked on at a time on a CPU, so that they stay in its cache from the first step to the last."""
ORDERS = tuple(permutations(range(4)))
"""The orders in which brightness, contrast, saturation and hue are changed."""


class Changes(NamedTuple):
    """What happens to views; all of one shape, such as (V, B).

    `orders` indexes ORDERS, -1 leaves the colours alone; `amounts` (..., 4) are torchvision's factors of brightness,
    contrast, saturation and hue; `sigmas` are pixels, 0 does not blur; `inverted` views have their bright levels
    inverted.
    """

    flips: Tensor
    orders: Tensor
    amounts: Tensor
    greys: Tensor
    sigmas: Tensor
    inverted: Tensor

    def views(self, first: int, last: int) -> "Changes":
        """Those of views first .. last - 1 of all images, flat: one view of all images after the other."""
        chosen = (values[first:last] for values in self)
        return Changes(*(values.reshape(-1, *values.shape[2:]) for values in chosen))


def draw_changes(plan: ViewPlan, shape: tuple[int, int], generator: np.random.Generator) -> Changes:
    """Draw for every one of `shape` views on its own; on the CPU.

    What is drawn for one step is the same whichever other steps a plan takes.
    """
    jittered, orders, greyed, blurred = generator.random((4, *shape))
    amounts = generator.random((*shape, 4))
    sigmas = generator.random(shape)
    flipped, solarized = generator.random((2, *shape))
    least, most = np.array([_range(value, is_hue=name == 3) for name, value in enumerate(plan.jitter)]).T
    order = np.floor(orders * len(ORDERS)).astype(np.int64)
    has_jitter = any(plan.jitter)
    sigma = plan.blur_sigma[0] + sigmas * (plan.blur_sigma[1] - plan.blur_sigma[0])
    return Changes(
        flips=torch.from_numpy(flipped < plan.flip_probability),
        orders=torch.from_numpy(np.where((jittered < plan.jitter_probability) & has_jitter, order, -1)),
        amounts=torch.from_numpy((least + amounts * (most - least)).astype(np.float32)),
        greys=torch.from_numpy(greyed < plan.grey_probability),
        sigmas=torch.from_numpy(np.where(blurred < plan.blur_probability, sigma, 0).astype(np.float32)),
        inverted=torch.from_numpy(solarized < plan.solarize_probability),
    )


def augment(pixels: Tensor, changes: Changes, plan: ViewPlan) -> Tensor:
    """Change views as drawn.

    Args:
        pixels: uint8 (N, 3, size, size), on any device.
        changes: of shape (N,), on the CPU.
        plan: which steps there are; those it has not cost nothing.

    Returns:
        The same shape: uint8 if only flips are planned, else float32 levels from 0 to 255, not rounded.
    """
    if plan.flip_probability:
        pixels = _flipped(pixels, changes.flips)
    has_jitter = plan.jitter_probability > 0 and any(plan.jitter)
    if not (has_jitter or plan.grey_probability or plan.blur_probability or plan.solarize_probability):
        return pixels
    changed = torch.empty(pixels.shape, device=pixels.device)
    with torch.autocast(pixels.device.type, enabled=False):
        for order, rows in _chunks(changes.orders, pixels):
            places = rows.to(pixels.device)
            part = _recolour(_planes(pixels.index_select(0, places)), order, changes, rows, plan)
            part = _blurred(part, changes.sigmas[rows]) if plan.blur_probability else part
            part = _solarized(part, changes.inverted[rows]) if plan.solarize_probability else part
            changed.index_copy_(0, places, part)
    return changed


def _flipped(pixels: Tensor, flips: Tensor) -> Tensor:
    chosen = flips.nonzero()[:, 0]
    if pixels.device.type == "cpu":  # one after the other: an indexed copy is nine times slower, and loses the layout
        pixels = pixels.clone()
        for row in chosen.tolist():
            pixels[row] = pixels[row].flip(-1)
        return pixels
    places = chosen.to(pixels.device)
    return pixels.index_copy(0, places, pixels.index_select(0, places).flip(-1))


def _planes(pixels: Tensor) -> Tensor:
    """As float32, each channel a plane of its own: three times as fast to work on as channels that are interleaved."""
    return pixels.to(torch.float32, memory_format=torch.contiguous_format)


def _chunks(orders: Tensor, pixels: Tensor) -> Iterator[tuple[int, Tensor]]:
    """(order, rows) of views that share an order, few enough at a time for a CPU's cache."""
    most = max(1, CHUNK // pixels[0].numel()) if pixels.device.type == "cpu" else len(orders)
    for order in sorted(set(orders.tolist())):
        for rows in (orders == order).nonzero()[:, 0].split(most):
            yield order, rows


def _recolour(pixels: Tensor, order: int, changes: Changes, rows: Tensor, plan: ViewPlan) -> Tensor:
    amounts = changes.amounts[rows].to(pixels.device)
    steps = (colour.brighten, colour.contrast, colour.saturate, colour.turn_hue)
    for step in ORDERS[order] if order >= 0 else ():
        if plan.jitter[step]:
            pixels = steps[step](pixels, amounts[:, step])
    chosen = changes.greys[rows].nonzero()[:, 0].to(pixels.device)
    if len(chosen):
        pixels.index_copy_(0, chosen, colour.grey(pixels.index_select(0, chosen)).expand(-1, 3, -1, -1))
    return pixels


def _blurred(pixels: Tensor, sigmas: Tensor) -> Tensor:
    chosen = sigmas.nonzero()[:, 0]
    if len(chosen):
        # SwAV's deviation of at most 2 px needs 13 taps; small views take fewer
        taps = max(3, min(13, pixels.shape[-1] // 16 * 2 + 1))
        places = chosen.to(pixels.device)
        done = colour.blur(pixels.index_select(0, places), sigmas[chosen].to(pixels.device), taps)
        pixels.index_copy_(0, places, done)
    return pixels


def _solarized(pixels: Tensor, inverted: Tensor) -> Tensor:
    chosen = inverted.nonzero()[:, 0].to(pixels.device)
    if len(chosen):
        pixels.index_copy_(0, chosen, colour.solarize(pixels.index_select(0, chosen)))
    return pixels


def _range(strength: float, *, is_hue: bool) -> tuple[float, float]:
    """torchvision's reading of a jitter's strength: a factor around 1, or a turn around 0."""
    return (-strength, strength) if is_hue else (max(0.0, 1 - strength), 1 + strength)
