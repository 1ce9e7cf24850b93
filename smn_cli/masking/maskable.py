"""Which parameters of a backbone a mask may touch."""

from collections.abc import Iterable
from fnmatch import fnmatchcase

from torch import nn

from smn_cli.masking.ties import tied_names

_MASKABLE = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


def is_depthwise(module: nn.Module) -> bool:
    """True for a convolution in which every group sees a single input channel of several."""
    return isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)) and module.groups == module.in_channels > 1


def maskable_names(
    backbone: nn.Module, *, include_depthwise: bool, include_stem: bool, also: tuple[str, ...] = ()
) -> list[str]:
    """Names of the parameters that get scores, in the order of the module tree.

    Maskable are the weights of convolution and linear layers. Normalisation, biases, embeddings, class tokens and
    position embeddings are never among them unless `also` names them.

    Args:
        backbone: a network without its classifier.
        include_depthwise: also the depthwise convolutions, whose filters are a few weights each.
        include_stem: also the first convolution or linear layer (of a ViT: the patch embedding).
        also: shell-style patterns of further parameter names, for reproductions of the paper's own code.

    Returns:
        Parameter names; empty if nothing fits. A weight that two modules share is named once, by its first name.
    """
    layers = [(name, module) for name, module in backbone.named_modules() if isinstance(module, _MASKABLE)]
    parameters = dict(backbone.named_parameters())
    names: list[str] = []
    for position, (layer_name, module) in enumerate(layers):
        name = f"{layer_name}.weight" if layer_name else "weight"
        is_left_out = (position == 0 and not include_stem) or (is_depthwise(module) and not include_depthwise)
        if name in parameters and not is_left_out:
            names.append(name)
    tied = tied_names(backbone)
    extra = [name for name in parameters if name not in names and fits(tied.get(name, (name,)), also)]
    return names + extra


def fits(names: Iterable[str], patterns: Iterable[str]) -> bool:
    """Whether one of a parameter's names matches one of these shell-style patterns."""
    return any(fnmatchcase(name, pattern) for name in names for pattern in patterns)
