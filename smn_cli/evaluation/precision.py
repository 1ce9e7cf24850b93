"""In which number format a network computes."""

from contextlib import AbstractContextManager, nullcontext

import torch

PRECISIONS = ("auto", "fp32", "bf16")


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
