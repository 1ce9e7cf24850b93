"""A frozen backbone with effective weights put in place of some of its own."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from smn_cli.masking.arrays import rescale_factor
from smn_cli.masking.binarize import check_not_empty, effective_weight, in_memory_order, score_gradient
from smn_cli.masking.ties import in_every_place
from smn_cli.masking.topk import binarize_topk, mask_of


class WeightSource(Protocol):
    """What training changes, and the weights that follow from it.

    Attributes:
        backbone: the frozen network; never written to, but for running statistics inside `adapting_statistics`.
        trained: the optimiser's parameters, by the name of the weight each belongs to.
    """

    backbone: nn.Module
    trained: dict[str, nn.Parameter]

    def effective_weights(self) -> dict[str, Tensor]:
        """Weights to train with, by name; take them once a step."""
        ...

    def pass_gradients(self) -> None:
        """To be called after the backward pass: takes the gradients of those weights on to `trained`."""
        ...

    def refresh(self) -> int:
        """To be called when `trained` has changed, before weights are taken again.

        Returns:
            How many mask bits have flipped since the last call, those of weights that are exactly zero left out.
        """
        ...

    def final_weights(self) -> dict[str, Tensor]:
        """The weights that an adapter of this moment would rebuild, as tensors of their own, without gradient."""
        ...

    def masks(self) -> dict[str, Tensor]:
        """Bool mask by parameter name; empty if there are none."""
        ...

    def density(self) -> float:
        """Fraction of the weights kept, as of the last `refresh`; 1.0 if there is no mask."""
        ...


class MaskedBackbone:
    """The method: maskable weights times masks of learned scores.

    Besides base and scores it holds one more tensor a weight, the effective one, which is written over in every step.

    Args:
        backbone: maps images (B, C, H, W) to features (B, F); put in eval mode, gradients off.
        scores: per parameter name a float tensor of that parameter's shape.
        threshold: scores strictly above it keep their weight. A score of infinity keeps it for ever.
        kept_fraction: if given, this fraction of every tensor's finite scores is kept in its place, the largest; may
            be set anew before a `refresh`.
    """

    def __init__(
        self,
        backbone: nn.Module,
        scores: dict[str, Tensor],
        threshold: float = 0.0,
        kept_fraction: float | None = None,
    ) -> None:
        self.backbone = backbone.eval().requires_grad_(False)
        self.threshold = threshold
        self.kept_fraction = kept_fraction
        self._weights = {name: backbone.get_parameter(name) for name in scores}
        # scores lie in memory as their weights do, or every product of the two would stride
        self.trained = {
            name: nn.Parameter(torch.empty_like(self._weights[name], dtype=torch.float32).copy_(tensor))
            for name, tensor in scores.items()
        }
        self._effective = {name: weight.detach().clone().requires_grad_() for name, weight in self._weights.items()}
        self._num_kept: dict[str, int] = {}
        largest = max(weight.numel() for weight in self._weights.values())
        device = next(iter(self._weights.values())).device
        self._space = [torch.empty(largest, dtype=torch.bool, device=device) for _ in range(2)]
        self.refresh()

    def effective_weights(self) -> dict[str, Tensor]:
        """Masked, rescaled weights.

        Raises:
            TrainingError: a tensor's mask is empty; the message names it.
        """
        for name, num_kept in self._num_kept.items():
            check_not_empty(num_kept, self._weights[name], name)
        return dict(self._effective)

    @torch.no_grad()
    def pass_gradients(self) -> None:
        """Straight through the thresholds, each in place: no gradient takes memory twice."""
        for name, effective in self._effective.items():
            if effective.grad is not None:
                weight, num_kept = self._weights[name], self._num_kept[name]
                self.trained[name].grad = score_gradient(effective.grad, weight, effective, num_kept)
                effective.grad = None

    @torch.no_grad()
    def refresh(self) -> int:
        """Form the effective weights of the scores as they are now, in place."""
        counts: list[int | Tensor] = []
        for name, scores in self.trained.items():
            # flat, compared into floats, then to bools in memory at hand: on a CPU each is several times quicker
            effective = in_memory_order(self._effective[name], like=scores)
            before, mask = (space[: len(effective)] for space in self._space)
            before.copy_(effective)
            if self.kept_fraction is None:
                mask.copy_(torch.gt(in_memory_order(scores, like=scores), self.threshold, out=effective))
            else:
                largest = binarize_topk(scores, self.kept_fraction)
                effective.copy_(mask.copy_(in_memory_order(largest, like=scores)))
            counts += [_num_true(mask), _num_true(before.bitwise_xor_(mask))]
        if any(isinstance(count, Tensor) for count in counts):
            counts = torch.stack(counts).tolist()  # type: ignore[arg-type]  # one wait for the device in all
        num_kept, num_flips = counts[::2], counts[1::2]
        self._num_kept = {name: int(count) for name, count in zip(self.trained, num_kept, strict=True)}
        for name, effective in self._effective.items():
            weight, kept = self._weights[name], self._num_kept[name]
            if kept:
                scale = rescale_factor(weight.numel(), kept)
                # added to +0.0, every cut weight becomes a positive zero, as in `effective_weight`; so does a kept -0.0
                torch.addcmul(effective.new_zeros(()), weight, effective, value=scale, out=effective)
        return int(sum(num_flips))

    def final_weights(self) -> dict[str, Tensor]:
        """Masked, rescaled weights by their definition.

        Raises:
            TrainingError: a tensor's mask is empty; the message names it.
        """
        masks = self.masks()
        for name, mask in masks.items():
            check_not_empty(int(mask.sum()), mask, name)
        return {name: effective_weight(self._weights[name].detach(), mask) for name, mask in masks.items()}

    def masks(self) -> dict[str, Tensor]:
        """Bool mask by parameter name, on the scores' device."""
        return {
            name: mask_of(scores.detach(), self.threshold, self.kept_fraction) for name, scores in self.trained.items()
        }

    def density(self) -> float:
        """Fraction of the masked weights kept, over all tensors together."""
        return sum(self._num_kept.values()) / sum(weight.numel() for weight in self._weights.values())


def _num_true(mask: Tensor) -> int | Tensor:
    """How many; on a CPU by NumPy, which counts bools four times as fast, elsewhere without waiting."""
    return int(np.count_nonzero(mask.numpy())) if mask.device.type == "cpu" else mask.count_nonzero()


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

    def pass_gradients(self) -> None:
        """They are where they belong."""

    def refresh(self) -> int:
        """Nothing follows from the weights but themselves."""
        return 0

    def final_weights(self) -> dict[str, Tensor]:
        """Copies of the trained copies."""
        return {name: tensor.detach().clone() for name, tensor in self.trained.items()}

    def masks(self) -> dict[str, Tensor]:
        """None."""
        return {}

    def density(self) -> float:
        """Nothing is cut."""
        return 1.0


def run_backbone(backbone: nn.Module, images: Tensor, weights: dict[str, Tensor]) -> Tensor:
    """Features (B, F) of images under the given effective weights, each in every place that holds its parameter."""
    return run_placed(backbone, images, in_every_place(weights, backbone))


def run_placed(backbone: nn.Module, images: Tensor, placed: dict[str, Tensor]) -> Tensor:
    """The same with weights by place, see `in_every_place`."""
    features: Tensor = functional_call(backbone, placed, (images,), tie_weights=False)
    return features


@contextmanager
def parameters_replaced(backbone: nn.Module, weights: dict[str, Tensor]) -> Iterator[None]:
    """The backbone computes with the given weights inside, in the backward pass too, where checkpoints recompute.

    `run_backbone` puts weights in place for one forward pass only.
    """
    weights = in_every_place(weights, backbone)
    places = {name: _place(backbone, name) for name in weights}
    own = {name: module._parameters[last] for name, (module, last) in places.items()}
    try:
        for name, (module, last) in places.items():
            module._parameters[last] = weights[name]  # type: ignore[assignment]  # any tensor computes
        yield
    finally:
        for name, (module, last) in places.items():
            module._parameters[last] = own[name]


def _place(backbone: nn.Module, name: str) -> tuple[nn.Module, str]:
    path, _, last = name.rpartition(".")
    return backbone.get_submodule(path), last


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
