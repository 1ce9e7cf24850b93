"""One feature vector out of the dispatcher's and the experts' (arXiv 2409.07577, section 3.4).

The features of dispatcher and experts stand side by side as E + 1 blocks; the dispatcher's is the first. Conditional: the
blocks of experts an image was not sent to are zero, before anything is centred. The paper then whitens by PCA. Its text
divides by the eigenvalues of the covariance, which leaves variances unequal; here, as in its authors' code up to a
constant, components are divided by their standard deviation, so that each has variance one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

KINDS = ("none", "random", "blocks", "pca")
MODES = ("conditional", "unconditional")


@dataclass(frozen=True)
class Combination:
    """How blocks become one vector.

    Attributes:
        kind: "none": blocks to unit length, side by side, nothing stored; "random": a seeded projection of those by
            random signs, with a centre and a scale for each component stored; "blocks": a whitening PCA for each
            block; "pca": one over all blocks, the paper's.
        mode: "conditional" or "unconditional", of the blocks it was fitted on.
        num_blocks, num_features: E + 1 and F.
        dim: width of the result.
        seed: of the random signs.
        tensors: by name, each as it is stored; empty for "none".
    """

    kind: str
    mode: str
    num_blocks: int
    num_features: int
    dim: int
    seed: int
    tensors: dict[str, Tensor]

    @property
    def num_bytes(self) -> int:
        """Bytes of its tensors in a file."""
        raise NotImplementedError

    def combine(self, blocks: Sequence[Tensor], routes: Tensor | None = None) -> Tensor:
        """Combined features.

        Args:
            blocks: E + 1 times (N, F) float, the dispatcher's first. Conditional: rows of an expert that an image was
                not sent to are never looked at.
            routes: (N,) int64 from `Router.route`; needed, and only taken, if conditional.

        Returns:
            (N, dim) float32 on the CPU.

        Raises:
            UsageError: routes are missing or too much, or the blocks have another shape.
        """
        raise NotImplementedError


def fit_combination(
    blocks: Sequence[Tensor],
    routes: Tensor | None = None,
    *,
    kind: str = "none",
    dim: int | None = None,
    seed: int = 0,
) -> Combination:
    """Combination fitted on training images, without labels.

    Args:
        blocks: E + 1 times (N, F) float, the dispatcher's first; a single block is the dispatcher alone.
        routes: (N,) int64 from `Router.route` for a conditional combination, None for an unconditional one.
        kind: one of `KINDS`.
        dim: width of the result, None for the widest there is up to F ("none": E + 1 times F, which is the only one).
            Never more than the images and the blocks tell apart.
        seed: of the projection.

    Raises:
        UsageError: unknown kind, or a `dim` that is not there to be had.
        DataError: features that are no finite numbers, or all the same.
    """
    raise NotImplementedError


def whiten_alone(features: Tensor, *, dim: int | None = None, seed: int = 0) -> Combination:
    """The control that the paper lacks: the dispatcher's features alone, centred and whitened like a cascade's.

    Args:
        features: (N, F) float.
        dim, seed: as in `fit_combination`.

    Returns:
        A combination of one block: `combine([features])`.

    Raises:
        UsageError, DataError: as in `fit_combination`.
    """
    return fit_combination([features], kind="pca", dim=dim, seed=seed)
