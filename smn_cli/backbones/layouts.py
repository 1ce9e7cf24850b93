"""Weights of other code bases under their own names, renamed to timm's."""

from torch import Tensor


def rename_to_timm(tensors: dict[str, Tensor], timm_names: list[str]) -> tuple[dict[str, Tensor], str | None]:
    """Tensors under timm's names if their layout is a known one, and the layout's name.

    Args:
        tensors: a state dict as its file has it.
        timm_names: names of the timm model's full state dict, classifier included, in its order.
    """
    if _is_efficientnet_pytorch(tensors) and len(tensors) == len(timm_names):
        # both define the layers in the order of the forward pass; shapes are compared when the weights are matched
        return dict(zip(timm_names, tensors.values(), strict=True)), "efficientnet-pytorch"
    return tensors, None


def _is_efficientnet_pytorch(tensors: dict[str, Tensor]) -> bool:
    return "_conv_stem.weight" in tensors and "_blocks.0._depthwise_conv.weight" in tensors
