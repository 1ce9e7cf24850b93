"""Which expert an image goes to (Self-Masking Networks, arXiv 2409.07577, section 3.4).

Features to unit length, centred, projected to a few principal components of variance one; there a Gaussian mixture or
k-means tells the clusters. The authors' code leaves components at a variance of 1 / N, where scikit-learn's floor under
the covariances (1e-6) weighs more the more images there are; at variance one it weighs nothing. What a router computes
with is rounded before the clusters are fitted, so that the router in memory and the one read from a file are the same.
"""

import warnings
from dataclasses import dataclass
from typing import get_args

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor
from torch.nn import functional

from smn_cli.cascade.options import Clustering
from smn_cli.cascade.projection import Projection, check_finite, fit_projection
from smn_cli.errors import DataError, UsageError
from smn_cli.seeding import sklearn_seed

CLUSTERINGS: tuple[str, ...] = get_args(Clustering)
NUM_COMPONENTS = 20
"""As in the paper."""
_KMEANS_STARTS = 10


@dataclass(frozen=True)
class Router:
    """Tensors and the formula that sends a feature to an expert.

    With z the projected feature, an expert's logit is bias - |(z - centre) P|^2 / 2, where P is the expert's upper
    triangular matrix for "gmm" and 1 for "kmeans". The highest logit wins, of equal ones the first.

    Attributes:
        kind: "gmm" or "kmeans".
        tensors: as they are stored: axes (D, F) int8, scales and offsets (D,) float32 of the projection, centres (E, D)
            and biases (E,) float32; for "gmm" also precisions (E, D (D + 1) / 2) float16, the upper triangles by row.
    """

    kind: str
    tensors: dict[str, Tensor]

    @property
    def num_experts(self) -> int:
        """E: clusters, each of which has an expert."""
        return len(self.tensors["centres"])

    @property
    def num_features(self) -> int:
        """F: width of the features it takes."""
        return self.tensors["axes"].shape[1]

    @property
    def num_bytes(self) -> int:
        """Bytes of its tensors in a file."""
        return sum(tensor.nbytes for tensor in self.tensors.values())

    def route(self, features: Tensor) -> Tensor:
        """Expert of each image.

        Args:
            features: (N, F) float, of the dispatcher, of any length; N may be 0.

        Returns:
            (N,) int64 on the CPU, 0 to E - 1.
        """
        return self.logits(features).argmax(dim=1)

    def logits(self, features: Tensor) -> Tensor:
        """(N, F) float to (N, E) float64, see the class."""
        points = Projection.of(self.tensors).project(unit(features))
        logits = []
        for expert, centre in enumerate(self.tensors["centres"].double()):
            distances = points - centre
            if self.kind == "gmm":
                distances = distances @ _triangle(self.tensors["precisions"][expert], len(centre))
            logits.append(self.tensors["biases"][expert].double() - distances.square().sum(dim=1) / 2)
        return torch.stack(logits, dim=1)


def fit_router(
    features: Tensor, num_experts: int, *, kind: str = "gmm", seed: int = 0, num_components: int = NUM_COMPONENTS
) -> Router:
    """Router over clusters of features; the same on every call.

    Args:
        features: (N, F) float, of the dispatcher on the training images.
        num_experts: E, 1 or more. A cluster may be left without images: count them with `route`.
        kind: "gmm" for a Gaussian mixture with full covariances, "kmeans" for the nearest centre.
        seed: of the projection and the clusters.
        num_components: of the projection; fewer where the features have fewer.

    Raises:
        UsageError: `kind` is unknown or a number below 1.
        DataError: fewer distinct images than experts or than two, or features that are no finite numbers.
    """
    if kind not in CLUSTERINGS:
        raise UsageError(f"clustering {kind!r} is unknown: expected one of {', '.join(CLUSTERINGS)}")
    if num_experts < 1 or num_components < 1:
        raise UsageError(f"{num_experts} experts over {num_components} components: expected 1 or more of both")
    check_finite(features)
    projection = fit_projection(unit(features), num_components, seed=seed)
    points = projection.project(unit(features)).numpy()
    num_distinct = len(np.unique(points, axis=0))
    if num_distinct < num_experts:
        raise DataError(
            f"{len(features)} images, of which {num_distinct} differ, make no {num_experts} clusters: "
            "add images or ask for fewer experts"
        )
    # a second to load, which most commands do without; before the limits, which are on what is loaded
    from sklearn import cluster, mixture  # noqa: F401
    from sklearn.exceptions import ConvergenceWarning

    fit = _mixture if kind == "gmm" else _centres
    with threadpool_limits(1), warnings.catch_warnings():  # several threads add partial sums in any order
        warnings.simplefilter("ignore", ConvergenceWarning)  # clusters that still move a little are clusters
        found = fit(points, num_experts, sklearn_seed(seed))
    return Router(kind, {**projection.tensors(), **found})


def unit(features: Tensor) -> Tensor:
    """(N, F) float to unit length, float32 on the CPU; zeros stay zeros."""
    return functional.normalize(features.detach().to("cpu", torch.float32), dim=1)


def _centres(points: np.ndarray, num_experts: int, seed: int) -> dict[str, Tensor]:
    from sklearn.cluster import KMeans

    fitted = KMeans(num_experts, n_init=_KMEANS_STARTS, random_state=seed).fit(points)
    return {"centres": torch.from_numpy(fitted.cluster_centers_).float(), "biases": torch.zeros(num_experts)}


def _mixture(points: np.ndarray, num_experts: int, seed: int) -> dict[str, Tensor]:
    from sklearn.mixture import GaussianMixture

    fitted = GaussianMixture(num_experts, random_state=seed).fit(points)
    rows, columns = np.triu_indices(points.shape[1])
    precisions = torch.from_numpy(fitted.precisions_cholesky_[:, rows, columns]).half()
    volumes = precisions[:, torch.from_numpy(rows == columns)].double().log().sum(dim=1)
    return {
        "centres": torch.from_numpy(fitted.means_).float(),
        "precisions": precisions,
        "biases": (torch.from_numpy(fitted.weights_).log() + volumes).float(),
    }


def _triangle(values: Tensor, side: int) -> Tensor:
    matrix = torch.zeros(side, side, dtype=torch.float64)
    rows, columns = torch.triu_indices(side, side)
    matrix[rows, columns] = values.double()
    return matrix
