"""A linear classifier on frozen features: multinomial logistic regression (arXiv 2409.07577, section 4)."""

import warnings

import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from torch import Tensor

PAPER_C = 100.0
"""scikit-learn's C that equals the paper's L2 penalty of 0.01 / N on the mean loss."""


def linear_probe_predict(
    bank: Tensor, bank_labels: Tensor, queries: Tensor, *, c: float = PAPER_C, max_iterations: int = 500
) -> Tensor:
    """Fit on the bank, predict the queries.

    Features are divided by one number, the root mean square of the bank's, so that the penalty means the same for
    networks whose features differ in scale.

    Args:
        bank: (N, F) features.
        bank_labels: (N,) int64; two classes or more.
        queries: (Q, F).
        c: inverse strength of the L2 penalty, above 0.
        max_iterations: of L-BFGS; a fit that has not converged by then is used as it is.

    Returns:
        (Q,) int64 predicted classes.
    """
    scale = bank.float().square().mean().sqrt().clamp_min(torch.finfo(torch.float32).tiny)
    model = LogisticRegression(C=c, max_iter=max_iterations, tol=1e-3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit((bank / scale).numpy(), bank_labels.numpy())
    return torch.from_numpy(model.predict((queries / scale).numpy())).long()
