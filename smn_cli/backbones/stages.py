"""A network's own stages as features: what its last blocks put out, before pooling throws most of it away.

Of every map (C, H, W) the mean and the deviation over positions are kept; of the tokens of a ViT the class token, and
mean and deviation of the patches'. So a stage is 2 C numbers, 3 C with a class token.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from smn_cli.backbones.structure import block_names
from smn_cli.errors import BackboneError

NUM_STAGES = 4


def has_stages(model: nn.Module) -> bool:
    """Whether a network names blocks, so that it has stages."""
    return bool(block_names(model))


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
        BackboneError: the network names no blocks, see `block_names`.
    """
    names = block_names(model)[-num_stages:]
    if not names:
        raise BackboneError(f"{type(model).__name__} lists no stages to take features from")
    blocks = [model.get_submodule(name) for name in names]
    is_channels_last = getattr(model, "output_fmt", "NCHW") == "NHWC"
    num_prefix = int(getattr(model, "num_prefix_tokens", 0))

    def run(images: Tensor) -> tuple[Tensor, Tensor]:
        pooled: dict[int, Tensor] = {}

        def keep(position: int) -> Callable[[nn.Module, object, Tensor], None]:
            def hook(_module: nn.Module, _inputs: object, output: Tensor) -> None:
                pooled[position] = _pooled(output, is_channels_last, num_prefix)

            return hook

        handles = [block.register_forward_hook(keep(position)) for position, block in enumerate(blocks)]
        try:
            features: Tensor = model(images)
        finally:
            for handle in handles:
                handle.remove()
        return features, torch.cat([pooled[position] for position in range(len(blocks))], dim=1)

    return run


def _pooled(output: Tensor, is_channels_last: bool, num_prefix: int) -> Tensor:
    if output.ndim == 3:  # (B, tokens, C)
        patches = output[:, num_prefix:].float()
        first = [output[:, 0].float()] if num_prefix else []
        return torch.cat([*first, *_mean_and_deviation(patches, 1)], dim=1)
    maps = output.float().flatten(1, 2) if is_channels_last else output.float().flatten(2).transpose(1, 2)
    return torch.cat(_mean_and_deviation(maps, 1), dim=1)


def _mean_and_deviation(values: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    return values.mean(dim=dim), values.std(dim=dim, correction=0)
