"""Features of many images under one network."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn


@torch.inference_mode()
def extract_features(
    model: nn.Module, batches: Iterable[Tensor], *, progress: Callable[[int], None] | None = None
) -> Tensor:
    """Run a network in eval mode over batches of prepared images.

    Args:
        model: images (B, 3, H, W) to features (B, F).
        batches: float32 images; moved to the network's device.
        progress: called with the number of images done so far.

    Returns:
        (N, F) float32 on the CPU, in the order of the images.
    """
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    parts: list[Tensor] = []
    num_done = 0
    for batch in batches:
        images = batch.to(device, memory_format=torch.channels_last)
        parts.append(model(images).float().cpu())
        num_done += len(batch)
        if progress is not None:
            progress(num_done)
    model.train(was_training)
    return torch.cat(parts)
