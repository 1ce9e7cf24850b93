"""A classifier as an adapter carries it: 8 bits a weight with a scale for each class (docs/format.md, "Head")."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from smn_cli.errors import TrainingError

if TYPE_CHECKING:
    from torch import Tensor

    from smn_cli.evaluation.classifier import LinearClassifier

LEVELS = 127
"""Weights of a class are whole multiples, from -127 to 127, of the class's scale."""


@dataclass(frozen=True)
class StoredHead:
    """A linear classifier over the backbone's features.

    Attributes:
        name: timm's name of the layer, such as "fc".
        classes: names, in the order of the logits.
        levels: (C, F) int8.
        scales: (C,) float32, 0 or more.
        bias: (C,) float32.
    """

    name: str
    classes: tuple[str, ...]
    levels: np.ndarray
    scales: np.ndarray
    bias: np.ndarray

    @property
    def nbytes(self) -> int:
        """Size of the stored tensors."""
        return int(self.levels.nbytes + self.scales.nbytes + self.bias.nbytes)

    def classifier(self) -> "LinearClassifier":
        """The weights that it stands for: one float32 product each, the same on every machine."""
        import torch

        from smn_cli.evaluation.classifier import LinearClassifier

        weight, bias = self.named_arrays().values()
        return LinearClassifier(torch.from_numpy(weight), torch.from_numpy(bias))

    def arrays(self) -> dict[str, np.ndarray]:
        """The tensors of the file."""
        return {"head_levels": self.levels, "head_scales": self.scales, "head_bias": self.bias}

    def named_arrays(self) -> dict[str, np.ndarray]:
        """Weight (C, F) and bias (C,), float32, by timm's names."""
        weight = self.levels.astype(np.float32) * self.scales[:, None]
        return {f"{self.name}.weight": weight, f"{self.name}.bias": self.bias.copy()}

    def tensors(self) -> "dict[str, Tensor]":
        """Weight and bias by timm's names, for a checkpoint."""
        classifier = self.classifier()
        return {f"{self.name}.weight": classifier.weight, f"{self.name}.bias": classifier.bias}


def store_head(classifier: "LinearClassifier", *, name: str, classes: tuple[str, ...]) -> StoredHead:
    """Round a classifier to what an adapter carries; whoever evaluates it takes `StoredHead.classifier`.

    Raises:
        ValueError: a weight is not a finite number, or the sizes do not fit.
    """
    weight = classifier.weight.detach().cpu().float().numpy()
    bias = classifier.bias.detach().cpu().float().numpy().copy()
    if weight.shape[0] != len(classes) or bias.shape != (len(classes),):
        raise ValueError(f"a head of {weight.shape[0]} outputs does not fit {len(classes)} classes")
    if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
        raise ValueError("the head's weights are not all finite numbers")
    scales = np.abs(weight).max(axis=1) / np.float32(LEVELS)
    steps = np.divide(weight, scales[:, None], out=np.zeros_like(weight), where=scales[:, None] > 0)
    levels = np.clip(np.rint(steps), -LEVELS, LEVELS).astype(np.int8)
    return StoredHead(name, classes, levels, scales.astype(np.float32), bias)


def rounded_head(classifier: "LinearClassifier", *, name: str, classes: tuple[str, ...]) -> StoredHead:
    """A classifier as an adapter carries it.

    Raises:
        TrainingError: its weights are no longer numbers.
    """
    try:
        return store_head(classifier, name=name, classes=classes)
    except ValueError as error:
        raise TrainingError(f"{error}: lower `lr_head`") from None
