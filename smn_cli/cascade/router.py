"""Which expert an image goes to (Self-Masking Networks, arXiv 2409.07577, section 3.4).

Features to unit length, centred, projected to a few principal components of variance one; there a Gaussian mixture or
k-means tells the clusters. Everything a router computes with is rounded before the clusters are fitted, so that the
router in memory and the one read from a file are the same.
"""

from dataclasses import dataclass

from torch import Tensor

CLUSTERINGS = ("gmm", "kmeans")
NUM_COMPONENTS = 20
"""As in the paper."""


@dataclass(frozen=True)
class Router:
    """Tensors and the formula that sends a feature to an expert.

    Attributes:
        kind: "gmm" or "kmeans".
        tensors: by name, each as it is stored.
    """

    kind: str
    tensors: dict[str, Tensor]

    @property
    def num_experts(self) -> int:
        """E: clusters, each of which has an expert."""
        raise NotImplementedError

    @property
    def num_features(self) -> int:
        """F: width of the features it takes."""
        raise NotImplementedError

    @property
    def num_bytes(self) -> int:
        """Bytes in a file."""
        raise NotImplementedError

    def route(self, features: Tensor) -> Tensor:
        """Expert of each image.

        Args:
            features: (N, F) float, of the dispatcher, of any length; N may be 0.

        Returns:
            (N,) int64 on the CPU, 0 to E - 1.
        """
        raise NotImplementedError


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
        UsageError: `kind` is unknown or `num_experts` below 1.
        DataError: fewer distinct images than experts, or features that are no finite numbers.
    """
    raise NotImplementedError
