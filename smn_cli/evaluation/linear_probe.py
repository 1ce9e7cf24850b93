"""The linear probe: logistic regression on frozen features, its penalty chosen on the training images.

One fixed penalty rewards a network for the mere spread of its features: what is told apart by small directions is found
with a weak penalty and lost with a strong one. So each network gets the penalty that it does best with, chosen by
cross-validation on the training images alone. The paper's own is C = 100 (arXiv 2409.07577, section 4: 0.01 / N on the
mean loss); C is scikit-learn's, the inverse of the penalty on the sum over the images.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from smn_cli.evaluation.classifier import LinearClassifier, fit_classifier

PROBE_DECAYS = (1.0, 0.1, 0.01, 0.001, 0.0001)
"""That a probe chooses from; beside the mean loss, on features of root mean square 1."""
NUM_FOLDS = 3
MAX_CHOOSING = 3000
"""Images that choose the penalty, at most; all of them are fitted to."""
MAX_ITERATIONS, TOLERANCE = 300, 1e-9
CHOICE_ITERATIONS, CHOICE_TOLERANCE = 50, 1e-5
"""Of the fits that only choose: factors of ten apart, they need no more."""


class Probe(NamedTuple):
    """What a probe says of test images.

    Attributes:
        predicted: (T,) int64 classes.
        c: inverse strength of the penalty, as scikit-learn's; the given one, or the chosen one.
    """

    predicted: Tensor
    c: float


def linear_probe(train: Tensor, train_labels: Tensor, test: Tensor, *, c: float | None = None) -> Probe:
    """Fit on the training images, predict the test images.

    Features are divided by one number, the root mean square of the training images', so that the penalty means the same
    for networks whose features differ in scale. Classes without a training image are never predicted; a single class is
    all that is.

    Args:
        train: (N, F) features.
        train_labels: (N,) int64, any numbers.
        test: (T, F).
        c: inverse strength of the L2 penalty, above 0; by default chosen.
    """
    classes, labels = torch.unique(train_labels, return_inverse=True)
    decay = 1 / (c * len(train)) if c is not None else chosen_decay(train, labels)
    if len(classes) == 1:
        predicted = torch.zeros(len(test), dtype=torch.int64)
    else:
        predicted = _fit(train, labels, decay).logits(test.float()).argmax(dim=1)
    return Probe(classes[predicted], c if c is not None else 1 / (decay * len(train)))


def chosen_decay(features: Tensor, labels: Tensor) -> float:
    """The decay under which most images are told right by a fit to the other folds; of equals the strongest.

    Args:
        features: (N, F).
        labels: (N,) int64 from 0; every class is spread over the folds.
    """
    order = labels.argsort(stable=True)  # by class, so that each fold gets its share of every class
    order = order[:: -(-len(order) // MAX_CHOOSING)]
    fold = torch.arange(len(order)) % NUM_FOLDS
    right = dict.fromkeys(PROBE_DECAYS, 0)
    for held in range(NUM_FOLDS):
        own, others = order[fold == held], order[fold != held]
        if not len(own) or len(torch.unique(labels[others])) < 2:
            continue
        classes, targets = torch.unique(labels[others], return_inverse=True)
        for decay in PROBE_DECAYS:
            fitted = _fit(features[others], targets, decay, is_choice=True)
            predicted = fitted.logits(features[own].float()).argmax(dim=1)
            right[decay] += int((classes[predicted] == labels[own]).sum())
    return max(right, key=lambda decay: right[decay])


def _fit(features: Tensor, labels: Tensor, decay: float, *, is_choice: bool = False) -> LinearClassifier:
    return fit_classifier(
        features,
        labels,
        num_classes=int(labels.max()) + 1,
        decay=decay,
        max_images=len(features),
        max_iterations=CHOICE_ITERATIONS if is_choice else MAX_ITERATIONS,
        tolerance=CHOICE_TOLERANCE if is_choice else TOLERANCE,
        bias_decay=0.0,
    )
