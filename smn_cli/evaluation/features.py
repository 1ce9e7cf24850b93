"""Features of many images under one network."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from smn_cli.evaluation.precision import autocasting

Network = Callable[[Tensor], Tensor]
"""Images (B, 3, H, W) that lie anywhere to features (B, F)."""


@torch.inference_mode()
def extract_features(
    network: Callable[[Tensor], Tensor],
    batches: Iterable[Tensor],
    *,
    num_images: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Tensor:
    """Run a network over batches of prepared images.

    Args:
        network: images (B, 3, H, W) to features (B, F), in eval mode; moves them to its device itself, see
            `on_device`.
        batches: float32 images.
        num_images: N, if it is known; features are then written where they stay, and memory never holds them twice.
        progress: called with the number of images done so far.

    Returns:
        (N, F) float32 on the CPU, in the order of the images.

    Raises:
        ValueError: the batches do not hold `num_images` images.
    """
    parts: list[Tensor] = []
    num_done = 0
    for batch in batches:
        features = network(batch)
        if num_images is None:
            parts.append(features.float().cpu())
        else:
            if not parts:
                parts.append(torch.empty(num_images, features.shape[1]))
            parts[0][num_done : num_done + len(batch)] = features
        num_done += len(batch)
        if progress is not None:
            progress(num_done)
    if num_images not in (None, num_done):
        raise ValueError(f"expected {num_images} images, found {num_done}")
    return parts[0] if num_images is not None else torch.cat(parts)


def on_device(
    network: Callable[[Tensor], Tensor], device: torch.device, precision: str = "fp32"
) -> Callable[[Tensor], Tensor]:
    """The same network for images, or activations, that lie elsewhere; channels last, which convolutions like best.

    Args:
        network: images (B, 3, H, W) to features (B, F), on `device`.
        device: where it runs.
        precision: "fp32" or "bf16", see `autocasting`.
    """

    def run(images: Tensor) -> Tensor:
        with autocasting(precision, device):
            layout = torch.channels_last if images.ndim == 4 else torch.preserve_format
            return network(images.to(device, memory_format=layout))

    return run
