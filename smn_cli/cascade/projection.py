"""A whitening projection at eight bits a weight: centred components, each divided by its standard deviation."""

from dataclasses import dataclass

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor

from smn_cli.errors import DataError
from smn_cli.seeding import sklearn_seed

_LEVELS = 127
_FLAT = 1e-5
"""Components whose spread is below this share of the first one's are rounding and left out."""
_ROWS = 4096
"""Rows that are worked on at a time, in double precision."""


@dataclass(frozen=True)
class Projection:
    """x to (axes x) * scales - offsets.

    Attributes:
        axes: (D, F) int8, -127 to 127, rows at a length of their own.
        scales, offsets: (D,) float32, so that each component has mean 0 and variance 1 over what it was fitted on.
    """

    axes: Tensor
    scales: Tensor
    offsets: Tensor

    def project(self, vectors: Tensor) -> Tensor:
        """(N, F) float to (N, D) float64 on the CPU."""
        axes, scales, offsets = self.axes.double().T, self.scales.double(), self.offsets.double()
        parts = [part.to("cpu", torch.float64) @ axes * scales - offsets for part in torch.split(vectors, _ROWS)]
        return torch.cat(parts)

    def tensors(self, prefix: str = "") -> dict[str, Tensor]:
        """By name, as they are stored."""
        return {f"{prefix}axes": self.axes, f"{prefix}scales": self.scales, f"{prefix}offsets": self.offsets}

    @classmethod
    def of(cls, tensors: dict[str, Tensor], prefix: str = "") -> "Projection":
        """Inverse of `tensors`."""
        return cls(tensors[f"{prefix}axes"], tensors[f"{prefix}scales"], tensors[f"{prefix}offsets"])


def fit_projection(vectors: Tensor, dim: int, *, seed: int) -> Projection:
    """Principal components, rounded first and scaled then, so that what is stored is exactly whitened.

    Args:
        vectors: (N, F) float.
        dim: components wanted, 1 or more; there are never more than min(N - 1, F), nor than the vectors tell apart.
        seed: of the randomised decomposition, which is used where it is quicker.

    Raises:
        DataError: fewer than two images, or values that are no finite numbers.
    """
    if len(vectors) < 2:
        raise DataError(f"{len(vectors)} images cannot be told apart: a projection needs two or more")
    check_finite(vectors)
    dim = min(dim, len(vectors) - 1, vectors.shape[1])
    components = _components(vectors.detach().to("cpu", torch.float32).numpy(), dim, seed)
    peaks = components.abs().amax(dim=1, keepdim=True).clamp_min(1e-30)
    axes = (components / peaks * _LEVELS).round().to(torch.int8)
    plain = Projection(axes, torch.ones(len(axes)), torch.zeros(len(axes))).project(vectors)
    deviations, means = plain.std(dim=0, correction=0), plain.mean(dim=0)
    # images that are all alike have no spread to divide by
    scales = torch.where(deviations > 1e-9, 1 / deviations.clamp_min(1e-9), 1.0).float()
    return Projection(axes, scales, (means * scales.double()).float())


def _components(values: np.ndarray, dim: int, seed: int) -> Tensor:
    """(D, F) float64, the largest first, none of which is mere rounding; one of zeros if all values are the same."""
    centred = values - values.mean(axis=0)
    if not (np.abs(centred) > _FLAT * np.abs(values).max()).any():
        return torch.zeros(1, values.shape[1], dtype=torch.float64)
    from sklearn.decomposition import PCA  # a second to load, which most commands do without

    pca = PCA(dim, random_state=sklearn_seed(seed))
    with threadpool_limits(1):  # several threads add partial sums in any order
        pca.fit(centred)
    num_kept = max(1, int((pca.singular_values_ > _FLAT * pca.singular_values_[0]).sum()))
    return torch.from_numpy(pca.components_[:num_kept].copy()).double()


def check_finite(vectors: Tensor) -> None:
    """Refuse features that no sum survives.

    Raises:
        DataError: some are infinite or no numbers.
    """
    if not bool(vectors.isfinite().all()):
        raise DataError("some features are infinite or not numbers: the network does not work on these images")
