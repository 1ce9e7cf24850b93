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


def has_bf16(device: torch.device) -> bool:
    """Whether the device computes in bf16 itself and does not imitate it."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    ways = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return device.type == "cpu" and any(getattr(torch.cpu, way, bool)() for way in ways)


def fast_precision(device: torch.device) -> Literal["fp32", "bf16"]:
    """What computes fastest there, as far as its kind tells: bf16 on a CUDA device that has it, else fp32."""
    return "bf16" if device.type == "cuda" and has_bf16(device) else "fp32"
