"""Where the blocks of a network are, which of its biases cannot matter, and which no mask would reach."""

from torch import nn

_WITH_WEIGHTS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
_SOFTMAX_ATTENTION = ("Attention", "WindowAttention")


def block_names(model: nn.Module) -> list[str]:
    """Names of a network's blocks, from the first to the last.

    A block is what timm lists as the place of a feature, and what stands beside it in the tree of modules: of a ResNet,
    RegNet, ConvNeXt or Swin a stage (`layer1`, `stages.0`), of an EfficientNet or MobileNet a stage (`blocks.0`), of a
    ViT one transformer block. Nothing before the first block belongs to one, least of all the stem, and nothing after.

    Returns:
        Module names; empty for a network in which timm lists no such places.
    """
    modules = dict(model.named_modules())
    stem = next((name for name, module in modules.items() if isinstance(module, _WITH_WEIGHTS)), "")
    listed = [str(entry["module"]) for entry in getattr(model, "feature_info", [])]
    for first in listed:
        if not _has_weights(modules.get(first)) or f"{stem}.".startswith(f"{first}."):
            continue
        parent = first.rpartition(".")[0]
        prefix = f"{parent}." if parent else ""
        beside = [f"{prefix}{name}" for name, _ in modules[parent].named_children()]
        return [name for name in beside[beside.index(first) :] if _has_weights(modules[name])]
    return []


def idle_biases(model: nn.Module) -> dict[str, slice]:
    """Biases of attention keys within fused query-key-value biases, by parameter name.

    A constant added to all keys adds one number to all logits of a query, which the softmax cancels. So cutting them
    changes no output but through the scale of the tensor that they share with queries and values, and Adam would take
    that, or rounding noise, for a direction. Where keys are normalised or turned by position first, they do matter and
    are not listed.
    """
    found: dict[str, slice] = {}
    for name, module in model.named_modules():
        qkv = getattr(module, "qkv", None)
        if type(module).__name__ not in _SOFTMAX_ATTENTION or not isinstance(qkv, nn.Linear) or qkv.bias is None:
            continue
        width, rest = divmod(qkv.out_features, 3)
        if not rest and isinstance(getattr(module, "k_norm", nn.Identity()), nn.Identity):
            found[f"{name}.qkv.bias" if name else "qkv.bias"] = slice(width, 2 * width)
    return found


def cached_biases(model: nn.Module) -> set[str]:
    """Names of attention biases that timm reads once and then keeps for as long as a network is in eval mode.

    LeViT, TinyViT, EfficientFormer and EfficientViT-M do so. A mask over them would stop moving at the first image.
    """
    return {
        f"{name}.attention_biases" if name else "attention_biases"
        for name, module in model.named_modules()
        if hasattr(module, "attention_bias_cache")
    }


def _has_weights(module: nn.Module | None) -> bool:
    return module is not None and any(isinstance(part, _WITH_WEIGHTS) for part in module.modules())
