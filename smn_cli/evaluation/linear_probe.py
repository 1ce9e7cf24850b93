"""A linear classifier on frozen features: multinomial logistic regression (arXiv 2409.07577, section 4).

Not `fit_classifier`, which minimises the same sum: at the paper's weak penalty a fit stops long before the minimum, so
that the solver is part of the score, and here it is scikit-learn's in float32. A classifier that travels in an adapter
has a stronger penalty, and is taken to its minimum in float64.
"""

import warnings
from typing import TYPE_CHECKING

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression

PAPER_C = 100.0
"""scikit-learn's C that equals the paper's L2 penalty of 0.01 / N on the mean loss."""
TOLERANCE, TOLERANCE_OF_FEW = 1e-3, 1e-6
"""Largest slope left, with many images and with fewer than features: there the first stops far from the minimum."""


def linear_probe_predict(
    train: Tensor, train_labels: Tensor, test: Tensor, *, c: float = PAPER_C, max_iterations: int = 500
) -> Tensor:
    """Fit on the training images, predict the test images.

    Features are divided by one number, the root mean square of the training images', so that the penalty means the same
    for networks whose features differ in scale. Classes without a training image are never predicted; a single class is
    all that is.

    Args:
        train: (N, F) features.
        train_labels: (N,) int64, any numbers.
        test: (T, F).
        c: inverse strength of the L2 penalty, above 0.
        max_iterations: of L-BFGS; a fit that has not converged by then is used as it is.

    Returns:
        (T,) int64 predicted classes.
    """
    if bool((train_labels == train_labels[0]).all()):
        return train_labels[:1].repeat(len(test))
    from sklearn.linear_model import LogisticRegression  # a second to load, which most commands do without

    scale = train.float().square().mean().sqrt().clamp_min(torch.finfo(torch.float32).tiny)
    inputs, asked, labels = (train / scale).numpy(), (test / scale).numpy(), train_labels.numpy()
    if len(train) >= train.shape[1]:
        model = LogisticRegression(C=c, max_iter=max_iterations, tol=TOLERANCE)
        return _fitted(model, inputs, labels, asked)
    model = LogisticRegression(C=c, max_iter=max_iterations, tol=TOLERANCE_OF_FEW)
    with threadpool_limits(1):  # on matrices this small threads mostly wait for one another
        inputs, asked = _in_span(inputs, asked)
        return _fitted(model, inputs, labels, asked)


def _fitted(model: "LogisticRegression", inputs: np.ndarray, labels: np.ndarray, asked: np.ndarray) -> Tensor:
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(inputs, labels)  # which numbers the classes present itself
    return torch.from_numpy(model.predict(asked)).long()


def _in_span(train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same problem in the N directions that training features span: the penalty keeps weights out of all others.

    Returns:
        (N, N) and (T, N) float64, with all inner products between training and test features as before.
    """
    directions, coordinates = np.linalg.qr(train.astype(np.float64).T)
    return coordinates.T, test.astype(np.float64) @ directions
