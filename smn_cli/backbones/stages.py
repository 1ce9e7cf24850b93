"""A network's own stages as features: what its last blocks put out, before pooling throws most of it away.

Of every map (C, H, W) the mean and the deviation over positions are kept; of the tokens of a ViT the class token, and
mean and deviation of the patches'. So a stage is 2 C numbers, 3 C with a class token.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from smn_cli.backbones.structure import block_names
from smn_cli.errors import BackboneError

NUM_STAGES = 4


def has_stages(model: nn.Module, size: int) -> bool:
    """Whether the last blocks of a network can be read: it names some, and they put out maps or tokens when it runs.

    Args:
        model: a timm network, in eval mode.
        size: side of the images that it is tried with, in pixels.
    """
    if not block_names(model):
        return False
    device = next(model.parameters()).device
    try:
        with torch.inference_mode():
            with_stages(model)(torch.zeros(1, 3, size, size, device=device))
    except BackboneError:
        return False
    return True


def stage_features(model: nn.Module, num_stages: int = NUM_STAGES) -> Callable[[Tensor], Tensor]:
    """A function from images (B, 3, H, W) to pooled outputs (B, D) of a network's last blocks; see `with_stages`."""
    both = with_stages(model, num_stages)
    return lambda images: both(images)[1]


def with_stages(model: nn.Module, num_stages: int = NUM_STAGES) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """A function from images (B, 3, H, W) to what the network gives, and pooled outputs (B, D) of its last blocks.

    Args:
        model: a timm network, in eval mode; hooks stand on it only while the function runs.
        num_stages: how many blocks, from the last on, in their order; all of them where there are fewer.

    Raises:
        BackboneError: the network names no blocks, see `block_names`; or, from the function, a block puts out neither
            maps nor tokens, or is never called as a whole.
    """
    names = block_names(model)[-num_stages:]
    if not names:
        raise BackboneError(f"{type(model).__name__} lists no stages to take features from")
    widths = _known_widths(model)

    def run(images: Tensor) -> tuple[Tensor, Tensor]:
        pooled: dict[str, Tensor] = {}

        def keeper(name: str) -> Callable[[nn.Module, object, Any], None]:
            def hook(_module: nn.Module, _inputs: object, output: Any) -> None:
                if not isinstance(output, Tensor) or output.ndim not in (3, 4):
                    raise BackboneError(f"{name} of {type(model).__name__} puts out neither maps nor tokens")
                pooled[name] = _pooled(output, model, widths)

            return hook

        handles = [model.get_submodule(name).register_forward_hook(keeper(name)) for name in names]
        try:
            with _whole_blocks(model):
                features: Tensor = model(images)
        finally:
            for handle in handles:
                handle.remove()
        if unseen := [name for name in names if name not in pooled]:
            raise BackboneError(f"{type(model).__name__} never calls {unseen[0]} as a whole: it has no stages to read")
        return features, torch.cat([pooled[name] for name in names], dim=1)

    return run


@contextmanager
def _whole_blocks(model: nn.Module) -> Iterator[None]:
    """Gradient checkpointing, which runs a block's parts one by one, is off for a pass that needs no gradient."""
    if not any(getattr(module, "grad_checkpointing", False) for module in model.modules()):
        yield
        return
    model.set_grad_checkpointing(False)  # type: ignore[operator]  # of any timm network that was switched on
    try:
        yield
    finally:
        model.set_grad_checkpointing(True)  # type: ignore[operator]


def _known_widths(model: nn.Module) -> set[int]:
    """Channels that timm tells of a network's features."""
    listed = getattr(model, "feature_info", [])
    return {int(entry["num_chs"]) for entry in listed if "num_chs" in entry} | {int(getattr(model, "num_features", 0))}


def _pooled(output: Tensor, model: nn.Module, widths: set[int]) -> Tensor:
    if output.ndim == 3:  # (B, tokens, C)
        num_prefix = _num_prefix(output.shape[1], int(getattr(model, "num_prefix_tokens", 0)))
        patches = output[:, num_prefix:].float()
        first = [output[:, 0].float()] if num_prefix else []
        return torch.cat([*first, *_mean_and_deviation(patches, 1)], dim=1)
    is_channels_last = getattr(model, "output_fmt", "NCHW") == "NHWC" or (
        output.shape[1] not in widths and output.shape[3] in widths
    )
    maps = output.float().flatten(1, 2) if is_channels_last else output.float().flatten(2).transpose(1, 2)
    return torch.cat(_mean_and_deviation(maps, 1), dim=1)


def _num_prefix(num_tokens: int, told: int) -> int:
    """Tokens before the patches; none in a block that comes before they are added, as some of CaiT's do."""
    are_patches_alone = math.isqrt(num_tokens) ** 2 == num_tokens
    return 0 if are_patches_alone and math.isqrt(num_tokens - told) ** 2 != num_tokens - told else told


def _mean_and_deviation(values: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    return values.mean(dim=dim), values.std(dim=dim, correction=0)
