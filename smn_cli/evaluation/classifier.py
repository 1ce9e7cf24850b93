"""A linear classifier as tensors: weight and bias, and how one is fitted to features."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

DECAYS = (0.1, 0.01, 0.001)
"""Weights of half the squared norm of the weights beside the mean loss, on features of root mean square 1: between them
lies the best for everything from 30 to 3,000 images of three sets that was tried (docs/method.md)."""
MAX_IMAGES = 10_000
"""Images that a classifier is fitted to; more change it little and cost minutes."""
MAX_ITERATIONS = 100
TOLERANCE = 1e-6
"""Largest slope left; a tenth of it is the least change of a step."""
MAX_DOUBLES = 2**25
"""Entries of features up to which a fit is made in float64; above, memory counts more than the last digit."""
BIAS_DECAY = 1e-5


@dataclass(frozen=True)
class LinearClassifier:
    """Logits = features weight^T + bias.

    Attributes:
        weight: (C, F) float32.
        bias: (C,) float32.
    """

    weight: Tensor
    bias: Tensor

    def logits(self, features: Tensor) -> Tensor:
        """(B, F) features to (B, C) logits, on the features' device."""
        return functional.linear(features, self.weight.to(features.device), self.bias.to(features.device))


def root_mean_square(features: Tensor) -> float:
    """Of all entries of (N, F) features; a tiny positive number if they are all zero."""
    return float(features.double().square().mean().sqrt().clamp_min(torch.finfo(torch.float32).tiny))


def fit_classifier(
    features: Tensor,
    labels: Tensor,
    num_classes: int,
    *,
    decay: float,
    max_images: int = MAX_IMAGES,
    max_iterations: int = MAX_ITERATIONS,
    tolerance: float = TOLERANCE,
    bias_decay: float = BIAS_DECAY,
) -> LinearClassifier:
    """Multinomial logistic regression with an L2 penalty on the weights, without any randomness.

    Features are divided by their root mean square first, so that the penalty means the same for every network. A class
    without an image gets no weights and the bias that says so.

    Args:
        features: (N, F); at most the first `max_images` are used.
        labels: (N,) int64 below `num_classes`.
        num_classes: C.
        decay: weight of half the squared norm.
        max_images, max_iterations: what a fit may cost; one that has not converged by then is used as it is.
        tolerance: largest slope left; few images need a small one, since their loss itself is small.
        bias_decay: the same for the biases; 0 only where every class has an image.
    """
    scale = root_mean_square(features)
    used, targets = features[:max_images], labels[:max_images]
    dtype = torch.float64 if used.numel() <= MAX_DOUBLES else torch.float32
    scaled = used.to(dtype) / scale
    parameters = [torch.zeros(num_classes, n, dtype=dtype, requires_grad=True) for n in (scaled.shape[1], 1)]
    weight, bias = parameters
    optimizer = torch.optim.LBFGS(
        parameters,
        max_iter=max_iterations,
        tolerance_grad=tolerance,
        tolerance_change=tolerance / 10,
        line_search_fn="strong_wolfe",
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        logits = torch.addmm(bias[:, 0], scaled, weight.T)
        # the least weight on the biases keeps that of a class without an image from running away
        penalty = weight.square().sum() * (decay / 2) + bias.square().sum() * (bias_decay / 2)
        total: Tensor = functional.cross_entropy(logits, targets) + penalty
        total.backward()  # type: ignore[no-untyped-call]
        return total

    with torch.enable_grad():
        optimizer.step(loss)  # type: ignore[no-untyped-call]
    return LinearClassifier((weight.detach() / scale).float(), bias.detach()[:, 0].float())


def best_classifier(
    features: Tensor, labels: Tensor, test: Tensor, test_labels: Tensor, num_classes: int
) -> LinearClassifier:
    """The fit, of those with each decay, that is right about most test images; of equals the strongest decay.

    Args:
        features, labels: as in `fit_classifier`.
        test, test_labels: (T, F) and (T,) that are not fitted to.
        num_classes: C.
    """
    fits = [fit_classifier(features, labels, num_classes, decay=decay) for decay in DECAYS]
    right = [int((fit.logits(test.float()).argmax(dim=1) == test_labels).sum()) for fit in fits]
    return fits[right.index(max(right))]
