"""Features of many images under one network."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor


@torch.inference_mode()
def extract_features(
    network: Callable[[Tensor], Tensor],
    batches: Iterable[Tensor],
    *,
    progress: Callable[[int], None] | None = None,
) -> Tensor:
    """Run a network over batches of prepared images.

    Args:
        network: images (B, 3, H, W) to features (B, F), in eval mode; moves them to its device itself, see
            `on_device`.
        batches: float32 images.
        progress: called with the number of images done so far.

    Returns:
        (N, F) float32 on the CPU, in the order of the images.
    """
    parts: list[Tensor] = []
    num_done = 0
    for batch in batches:
        parts.append(network(batch).float().cpu())
        num_done += len(batch)
        if progress is not None:
            progress(num_done)
    return torch.cat(parts)


def on_device(network: Callable[[Tensor], Tensor], device: torch.device) -> Callable[[Tensor], Tensor]:
    """The same network for images that still lie elsewhere; channels last, which convolutions like best."""
    return lambda images: network(images.to(device, memory_format=torch.channels_last))
