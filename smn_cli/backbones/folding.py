"""Batch normalisation folded into the convolution before it, for networks whose statistics stay as they are."""

from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass

import torch
from timm.layers import BatchNormAct2d
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from smn_cli.masking.ties import tied_names

TOLERANCE = 1e-2
"""Relative difference of features. Right folds differ by 1e-6 in fp32 and 1e-3 in TF32, a wrong one by about 1."""


@dataclass(frozen=True)
class Folded:
    """A network and what other weights of the one it was made of have to be multiplied with to be put into it.

    Attributes:
        network: without normalisations, or the model itself.
        scales: (C_out,) by the name of a convolution's weight.
        kept: names of the parameters that mean the same in both.
    """

    network: nn.Module
    scales: dict[str, Tensor]
    kept: frozenset[str]

    def takes(self, names: Iterable[str]) -> bool:
        """Whether weights of these names can be carried over."""
        return all(name in self.scales or name in self.kept for name in names)

    def carried(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Weights of the model, of names that it takes, as they go into the network."""
        return {name: self._scaled(name, weight) for name, weight in weights.items()}

    def _scaled(self, name: str, weight: Tensor) -> Tensor:
        scale = self.scales.get(name)
        return weight if scale is None else weight * scale.view(-1, *[1] * (weight.ndim - 1))


def unfolded(model: nn.Module) -> Folded:
    """The model itself, which takes all of its weights."""
    return Folded(model, {}, frozenset(name for name, _ in model.named_parameters()))


@torch.no_grad()  # not in inference mode, whose tensors cannot need a gradient later
def fold(model: nn.Module, size: int) -> Folded:
    """A copy that computes the same features to float rounding, in less time; the model itself if that cannot be had.

    Each normalisation that was registered right after a convolution is taken for its own, which is how networks are
    written but no law: so the copy is compared with the model on two images, and dropped if they differ.

    Args:
        model: in eval mode.
        size: of the images, in pixels.
    """
    as_it_is = unfolded(model)
    pairs = _pairs(model)
    if not pairs or model.training:
        return as_it_is
    copy, scales, touched = deepcopy(model), {}, set()
    for conv_name, norm_name in pairs:
        conv, norm = copy.get_submodule(conv_name), copy.get_submodule(norm_name)
        assert isinstance(conv, nn.Conv2d)
        assert isinstance(norm, nn.BatchNorm2d)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        scale = torch.rsqrt(norm.running_var + norm.eps)
        scales[f"{conv_name}.weight"] = scale if norm.weight is None else norm.weight * scale
        touched |= {f"{conv_name}.weight", f"{conv_name}.bias"}
        conv.weight, conv.bias = fuse_conv_bn_weights(
            conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
        )
        parent, _, own = norm_name.rpartition(".")
        setattr(copy.get_submodule(parent), own, _after(norm))
    copy.requires_grad_(False)
    images = _waves(size).to(next(model.parameters()).device)
    ours, theirs = copy(images), model(images)
    if not float((ours - theirs).norm()) <= TOLERANCE * float(theirs.norm()):  # nor if it is no number
        return as_it_is
    tied = {name for names in tied_names(model).values() for name in names}  # a fold parts them
    kept = as_it_is.kept & {name for name, _ in copy.named_parameters()} - touched - tied
    return Folded(copy, {name: scale for name, scale in scales.items() if name not in tied}, kept)


def _pairs(model: nn.Module) -> list[tuple[str, str]]:
    """Names of convolutions and of the normalisations right after them."""
    pairs, before = [], ""
    for name, module in model.named_modules():
        if any(True for _ in module.children()) and not isinstance(module, BatchNormAct2d):
            continue
        last = model.get_submodule(before) if before else None
        fits = isinstance(last, nn.Conv2d) and last.out_channels == getattr(module, "num_features", None)
        if fits and type(module) in (nn.BatchNorm2d, BatchNormAct2d) and module.running_mean is not None:
            pairs.append((before, name))
        before = name
    return pairs


def _after(norm: nn.BatchNorm2d) -> nn.Module:
    """What a normalisation does besides normalising."""
    if isinstance(norm, BatchNormAct2d):
        return nn.Sequential(norm.drop, norm.act)
    return nn.Identity()


def _waves(size: int) -> Tensor:
    """Two images (2, 3, size, size) in which every channel and position differs, in [-2, 2]."""
    numbers = torch.arange(2 * 3 * size * size, dtype=torch.float64)
    return (2 * torch.sin(0.37 * numbers + (numbers / 997) ** 2)).float().reshape(2, 3, size, size)
