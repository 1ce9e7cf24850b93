"""A linear classifier on frozen features: multinomial logistic regression (arXiv 2409.07577, section 4)."""

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
    bank: Tensor, bank_labels: Tensor, queries: Tensor, *, c: float = PAPER_C, max_iterations: int = 500
) -> Tensor:
    """Fit on the bank, predict the queries.

    Features are divided by one number, the root mean square of the bank's, so that the penalty means the same for
    networks whose features differ in scale. Classes that the bank lacks are never predicted; with a single class in the
    bank it is all that is.

    Args:
        bank: (N, F) features.
        bank_labels: (N,) int64, any numbers.
        queries: (Q, F).
        c: inverse strength of the L2 penalty, above 0.
        max_iterations: of L-BFGS; a fit that has not converged by then is used as it is.

    Returns:
        (Q,) int64 predicted classes.
    """
    if bool((bank_labels == bank_labels[0]).all()):
        return bank_labels[:1].repeat(len(queries))
    from sklearn.linear_model import LogisticRegression  # a second to load, which most commands do without

    scale = bank.float().square().mean().sqrt().clamp_min(torch.finfo(torch.float32).tiny)
    inputs, asked, labels = (bank / scale).numpy(), (queries / scale).numpy(), bank_labels.numpy()
    if len(bank) >= bank.shape[1]:
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


def _in_span(bank: np.ndarray, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same problem in the N directions that the bank spans: the penalty keeps weights out of all others.

    Returns:
        (N, N) and (Q, N) float64, with all inner products between bank and queries as before.
    """
    directions, coordinates = np.linalg.qr(bank.astype(np.float64).T)
    return coordinates.T, queries.astype(np.float64) @ directions
