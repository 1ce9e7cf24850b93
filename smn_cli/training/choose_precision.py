"""Which number format trains a network fastest here: known of a GPU, measured on a processor that has both."""

import time
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from smn_cli.evaluation.precision import autocasting, fast_precision, has_bf16
from smn_cli.masking.backbone import run_backbone
from smn_cli.recipes import Precision

BATCH_SIZE, NUM_ROUNDS = 8, 3
LEAST_S = 0.2
"""Seconds of a pass in fp32; of a quicker one a run is short whatever it computes in, and a measurement noise."""
LEAST_GAIN = 1.3
"""Times faster that bf16 has to be: whoever asks for nothing gets fp32 unless there is something to it."""


class Choice(NamedTuple):
    """A number format, and in words why; empty where nothing was measured."""

    precision: Precision
    reason: str


def choose_precision(model: nn.Module, size: int, names: Sequence[str]) -> Choice:
    """fp32 or bf16, by a few forward and backward passes of random images where the processor has bf16.

    On some processors ConvNets train twice as fast in it, on others slower (docs/log.md), and no flag tells which.

    Args:
        model: the backbone, on its device; left as it was.
        size: of the images, in pixels.
        names: of the parameters that are trained.
    """
    device = next(model.parameters()).device
    if device.type != "cpu" or not has_bf16(device):
        return Choice(fast_precision(device), "")
    images = torch.rand(BATCH_SIZE, 3, size, size, generator=torch.Generator().manual_seed(0))
    images = images.contiguous(memory_format=torch.channels_last)
    weights = {name: model.get_parameter(name).detach().clone().requires_grad_() for name in names}
    least = {"fp32": float("inf"), "bf16": float("inf")}
    _pass_s(model, weights, images, "fp32")  # warms up
    for _ in range(NUM_ROUNDS):
        least["fp32"] = min(least["fp32"], _pass_s(model, weights, images, "fp32"))
        if least["fp32"] < LEAST_S:
            return Choice("fp32", "")
        least["bf16"] = min(least["bf16"], _pass_s(model, weights, images, "bf16"))
    gain = least["fp32"] / least["bf16"]
    return Choice("bf16" if gain >= LEAST_GAIN else "fp32", f"measured here: bf16 is {gain:.1f} times as fast as fp32")


def _pass_s(model: nn.Module, weights: dict[str, Tensor], images: Tensor, precision: Precision) -> float:
    started = time.perf_counter()
    with autocasting(precision, images.device):
        features = run_backbone(model, images, weights)
    torch.autograd.grad(features.float().sum(), list(weights.values()), allow_unused=True)
    return time.perf_counter() - started
