"""Whitening by a triangular matrix at eight bits a weight, which needs half the bytes of principal components.

Both make variances one and correlations zero, and differ by a rotation alone, which cosines do not see.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

_LEVELS = 127
_FLOOR = 1e-5
"""Of the mean variance, added to each, so that directions of no variance are not blown up."""


@dataclass(frozen=True)
class Whitening:
    """y to ((y - centre) U) * scales, with U upper triangular.

    Attributes:
        centre: (D,) float16.
        triangle: (D (D + 1) / 2,) int8, -127 to 127: U by row.
        scales: (D,) float32, so that each component has variance 1 over what it was fitted on.
    """

    centre: Tensor
    triangle: Tensor
    scales: Tensor

    def apply(self, vectors: Tensor) -> Tensor:
        """(N, D) float64 to (N, D) float64."""
        side = len(self.centre)
        matrix = torch.zeros(side, side, dtype=torch.float64)
        rows, columns = torch.triu_indices(side, side)
        matrix[rows, columns] = self.triangle.double()
        return (vectors - self.centre.double()) @ matrix * self.scales.double()


def fit_whitening(vectors: Tensor) -> Whitening:
    """Whitening of vectors, its matrix rounded first and scaled then.

    Args:
        vectors: (N, D) float64, not all the same, N > D.
    """
    centre = vectors.mean(dim=0).half()
    centred = vectors - centre.double()
    covariance = centred.T @ centred / len(vectors)
    covariance += torch.eye(len(covariance)) * float(covariance.diagonal().mean()) * _FLOOR
    upper = torch.linalg.inv(torch.linalg.cholesky(covariance)).T
    levels = (upper / upper.abs().amax(dim=0) * _LEVELS).round().to(torch.int8)
    rows, columns = torch.triu_indices(len(levels), len(levels))
    plain = Whitening(centre, levels[rows, columns], torch.ones(len(levels)))
    deviations = plain.apply(vectors).std(dim=0, correction=0)
    return Whitening(centre, plain.triangle, (1 / deviations).float())
