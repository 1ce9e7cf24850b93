"""What features cost."""

import time
from statistics import median

import torch
from torch import nn

from smn_cli.evaluation.features import on_device

_BATCH, _ROUNDS = 8, 5


@torch.inference_mode()
def milliseconds_an_image(model: nn.Module, size: int, device: torch.device, precision: str = "fp32") -> float:
    """Of a forward pass, median of a few small batches; an adapted network costs what its base costs.

    Args:
        model: a backbone, on the device, in eval mode.
        size: side of the images in pixels.
        device, precision: where it runs, and in which format.
    """
    network = on_device(model, device, precision)
    images = torch.zeros(_BATCH, 3, size, size)
    seconds = []
    for _ in range(_ROUNDS + 1):
        started = time.perf_counter()
        network(images).float().cpu()
        seconds.append(time.perf_counter() - started)
    return median(seconds[1:]) / _BATCH * 1000
