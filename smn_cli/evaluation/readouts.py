"""What can be read out of frozen features without training: centred, or partly whitened.

Both are fitted to unlabeled features, and are the controls beside every adapted network: what they give needs no mask.
With x the unit-length features minus their mean, X = U S V^T over the images that are fitted to,

    centred           x -> unit(x)
    partly whitened   x -> unit(V_d^T x * (s / s_1)^(p - 1)),   s^2 <- s^2 + shrink * mean of the kept s^2

so that p = 1 leaves the directions as they are and p = 0 makes them equal (Kessy et al., arXiv 1512.00809, for the full
whitening). d is at most a share of the images, since the small directions of few images are noise.

An adapter carries a readout as one linear map, fitted to x that are not of unit length (`LinearReadout`): only that can
be the last layer of a network. By cosine the two tell neighbours apart equally well (docs/method.md).
"""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from smn_cli.schemas.readout_kinds import LinearKind

ReadoutKind = Literal["raw", "centred", "whitened"]
POWER = 0.5
"""Of the singular values: halfway between as they are and equal."""
SHRINK = 0.1
"""Of their mean square, added to each square, so that directions of noise are not lifted to the height of others."""
_LEAST_VALUE = 1e-6
"""Of the largest singular value: a direction below it is rounding."""
_LEAST_SPREAD = 1e-5
"""Of the mean magnitude: below it half precision is all that moves."""
MAX_DIM, IMAGES_A_DIM = 256, 8
"""At most so many directions, and so many images for each."""
MAX_FITTED = 5000
"""Rows that a readout is fitted to, evenly spaced; more change 256 directions little, and cost memory and minutes."""
MAX_MEASURED = 50_000
"""Rows whose mean and spread stand for those of all, evenly spaced."""


@dataclass(frozen=True)
class Readout:
    """Features (N, F) to rows of unit length.

    Attributes:
        mean: (F,) of unit-length features, which is taken off; None to leave features as they are.
        weight: (F, d) what follows; None for the identity.
        shift, scale: (F,) to standardise features first, (features - shift) * scale; None not to.
    """

    mean: Tensor | None = None
    weight: Tensor | None = None
    shift: Tensor | None = None
    scale: Tensor | None = None

    def __call__(self, features: Tensor) -> Tensor:
        """(N, F) to (N, d) float32 of unit length, or without a mean the features as they are."""
        if self.mean is None:
            return features
        if self.shift is not None and self.scale is not None:
            features = (features.float() - self.shift) * self.scale
        rows = functional.normalize(features.float(), dim=1) - self.mean
        return functional.normalize(rows if self.weight is None else rows @ self.weight, dim=1)


def fit_readout(
    features: Tensor, kind: ReadoutKind, *, power: float = POWER, shrink: float = SHRINK, max_dim: int = MAX_DIM
) -> Readout:
    """Fit a readout to unlabeled features.

    Args:
        features: (N, F), N at least 2.
        kind: "raw" leaves them as they are; see the module for the others.
        power: p above, from 0 to 1.
        shrink: 0 or more.
        max_dim: d at most; it is never more than N / 8, nor than the rank.
    """
    if kind == "raw":
        return Readout()
    unit = functional.normalize(features[:: -(-len(features) // MAX_FITTED)].double(), dim=1)
    mean = unit.mean(dim=0)
    if kind == "centred":
        return Readout(mean.float())
    _, values, directions = torch.linalg.svd(unit - mean, full_matrices=False)
    stretch = _stretch(values, len(unit), power=power, shrink=shrink, max_dim=max_dim)
    return Readout(mean.float(), (directions[: len(stretch)].T * stretch).float())


def _stretch(values: Tensor, num_rows: int, *, power: float, shrink: float, max_dim: int) -> Tensor:
    """(d,) factors of the directions that are kept, from all singular values, the largest first."""
    rank = int((values > values[0] * _LEAST_VALUE).sum())
    dim = max(1, min(max_dim, num_rows // IMAGES_A_DIM, rank))
    squares = values[:dim].square()
    lifted = (squares + shrink * squares.mean()).sqrt().clamp_min(torch.finfo(torch.float64).tiny)
    stretch: Tensor = (lifted / lifted[0]) ** (power - 1)
    return stretch


def fit_stage_readout(stages: Tensor) -> Readout:
    """Each number of the stages (N, D) standardised, then partly whitened: stages differ in scale, and in it alone.

    Both are fitted to some of very many rows, evenly spaced.

    Numbers that are the same for all images are silenced, since they say nothing.
    """
    values = stages[:: -(-len(stages) // MAX_MEASURED)].float()
    shift, scale = values.mean(dim=0), _standardising(values)
    readout = fit_readout((values - shift) * scale, "whitened")
    return replace(readout, shift=shift, scale=scale)


def _standardising(values: Tensor) -> Tensor:
    """(D,) factors that give each number of (N, D) a spread of 1, and 0 for those that never move."""
    spread = values.std(dim=0, correction=0)
    moves = spread > _LEAST_SPREAD * values.abs().mean(dim=0)
    return torch.where(moves, 1 / spread.clamp_min(torch.finfo(torch.float32).tiny), 0.0)


@dataclass(frozen=True)
class LinearReadout:
    """Features (N, F) to (N, d) by one linear map: (features * inputs - mean) weight^T.

    Attributes:
        mean: (F,) float64 of features * inputs.
        weight: (d, F) float64; None for the identity.
        inputs: (F,) float32; None for ones.
    """

    mean: Tensor
    weight: Tensor | None = None
    inputs: Tensor | None = None


def fit_linear_readout(features: Tensor, kind: LinearKind) -> LinearReadout:
    """Fit a readout to unlabeled features, taken at the lengths that they have.

    Args:
        features: (N, F) finite numbers, N at least 2; for "stages" the numbers of the stages, each standardised first.
        kind: "centred" takes the mean off, "whitened" and "stages" whiten partly, with the d of `fit_readout`.
    """
    rows = features[:: -(-len(features) // MAX_FITTED)].double()
    inputs = _standardising(rows).float() if kind == "stages" else None
    rows = rows if inputs is None else rows * inputs.double()
    mean = rows.mean(dim=0)
    if kind == "centred":
        return LinearReadout(mean)
    values, directions = _principal(rows - mean)
    stretch = _stretch(values, len(rows), power=POWER, shrink=SHRINK, max_dim=MAX_DIM)
    return LinearReadout(mean, directions[: len(stretch)] * stretch[:, None], inputs)


def _principal(centred: Tensor) -> tuple[Tensor, Tensor]:
    """Singular values, the largest first, and right singular vectors as rows, of (N, F) by its smaller side.

    The largest entry of each vector is positive, so that signs do not hang on the library.
    """
    is_wide = centred.shape[0] < centred.shape[1]
    squares, vectors = torch.linalg.eigh(centred @ centred.T if is_wide else centred.T @ centred)
    values, vectors = squares.flip(0).clamp_min(0).sqrt(), vectors.flip(1)
    if is_wide:
        vectors = functional.normalize(centred.T @ vectors, dim=0)
    largest = vectors.gather(0, vectors.abs().argmax(dim=0, keepdim=True))
    return values, (vectors * torch.where(largest < 0, -1.0, 1.0)).T
