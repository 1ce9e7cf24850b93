"""A frozen backbone with effective weights put in place of some of its own."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from torch import Tensor, nn
from torch.func import functional_call

from smn_cli.masking.binarize import binarize, masked_weight


class WeightSource(Protocol):
    """What training changes, and the weights that follow from it.

    Attributes:
        backbone: the frozen network; never written to, but for running statistics inside `adapting_statistics`.
        trained: the optimiser's parameters, by the name of the weight each belongs to.
    """

    backbone: nn.Module
    trained: dict[str, nn.Parameter]

    def effective_weights(self) -> dict[str, Tensor]:
        """Weights to compute with, by name, differentiable in `trained`; form them once a step."""
        ...

    def masks(self) -> dict[str, Tensor]:
        """Bool mask by parameter name; empty if there are none."""
        ...


class MaskedBackbone:
    """The method: maskable weights times masks of learned scores.

    Args:
        backbone: maps images (B, C, H, W) to features (B, F); put in eval mode, gradients off.
        scores: per parameter name a float tensor of that parameter's shape.
        threshold: scores strictly above it keep their weight.
    """

    def __init__(self, backbone: nn.Module, scores: dict[str, Tensor], threshold: float = 0.0) -> None:
        self.backbone = backbone.eval().requires_grad_(False)
        self.threshold = threshold
        self._weights = {name: backbone.get_parameter(name) for name in scores}
        self.trained = {name: nn.Parameter(tensor.detach().clone()) for name, tensor in scores.items()}

    def effective_weights(self) -> dict[str, Tensor]:
        """Masked, rescaled weights.

        Raises:
            TrainingError: a tensor's mask is empty; the message names it.
        """
        return {
            name: masked_weight(scores, self._weights[name], self.threshold, name=name)
            for name, scores in self.trained.items()
        }

    def masks(self) -> dict[str, Tensor]:
        """Bool mask by parameter name, on the scores' device."""
        return {name: binarize(scores.detach(), self.threshold) for name, scores in self.trained.items()}


class TunedBackbone:
    """The baseline: copies of the same weights, trained themselves; there is no mask to ship.

    Args:
        backbone: see `MaskedBackbone`.
        names: the parameters to train.
    """

    def __init__(self, backbone: nn.Module, names: list[str]) -> None:
        self.backbone = backbone.eval().requires_grad_(False)
        self.trained = {name: nn.Parameter(backbone.get_parameter(name).detach().clone()) for name in names}

    def effective_weights(self) -> dict[str, Tensor]:
        """The trained copies."""
        return dict(self.trained)

    def masks(self) -> dict[str, Tensor]:
        """None."""
        return {}


def run_backbone(backbone: nn.Module, images: Tensor, weights: dict[str, Tensor]) -> Tensor:
    """Features (B, F) of images under the given effective weights."""
    features: Tensor = functional_call(backbone, weights, (images,))
    return features


@contextmanager
def adapting_statistics(backbone: nn.Module, *, enabled: bool = True) -> Iterator[None]:
    """Normalisation layers use and update batch statistics inside; everything else stays in eval mode."""
    layers = normalisation_layers(backbone) if enabled else {}
    for layer in layers.values():
        layer.train()
    try:
        yield
    finally:
        for layer in layers.values():
            layer.eval()


def normalisation_layers(backbone: nn.Module) -> dict[str, nn.Module]:
    """Layers with running statistics, by name: batch normalisation and its kin."""
    return {
        name: module
        for name, module in backbone.named_modules()
        if isinstance(getattr(module, "running_mean", None), Tensor)
    }


def running_statistics(backbone: nn.Module) -> dict[str, Tensor]:
    """Copies of all running means and variances, by state dict name; empty for a network without any."""
    return {
        f"{name}.{part}": getattr(layer, part).detach().clone()
        for name, layer in normalisation_layers(backbone).items()
        for part in ("running_mean", "running_var")
    }


def density(masks: dict[str, Tensor]) -> float:
    """Fraction of the masked weights that are kept, over all tensors together; 1.0 if there are none."""
    num_weights = sum(mask.numel() for mask in masks.values())
    num_kept = sum(int(mask.sum()) for mask in masks.values())
    return num_kept / num_weights if num_weights else 1.0
