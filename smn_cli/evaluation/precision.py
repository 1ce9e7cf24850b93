"""In which number format a network computes."""

from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch


def autocasting(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """A context whose matrix products and convolutions run in the given precision.

    Weights and scores stay float32; what needs the range or the bits (normalisation, losses) stays float32 as autocast
    has it.

    Args:
        precision: "fp32" or "bf16".
        device: where the network runs.
    """
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def fast_precision(device: torch.device) -> Literal["fp32", "bf16"]:
    """What trains fastest there: bf16 on a CUDA device that has it in hardware, else fp32.

    On a CPU, even one with bf16 instructions, ConvNets trained 1.5 to 3 times slower in it (docs/log.md).
    """
    is_fast = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16" if is_fast else "fp32"
