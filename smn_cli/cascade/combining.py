"""One feature vector out of the dispatcher's and the experts' (arXiv 2409.07577, section 3.4).

The features of dispatcher and experts, each to unit length, stand side by side as E + 1 blocks; the dispatcher's is the
first. Conditional: the blocks of experts an image was not sent to are zero, before anything is centred. The paper then
whitens by PCA. Its text divides by the eigenvalues of the covariance, which leaves variances unequal; here, as in its
authors' code up to a constant, components are divided by their standard deviation, so that each has variance one.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import get_args

import numpy as np
import torch
from torch import Tensor

from smn_cli.cascade.options import CombinationKind, Mode
from smn_cli.cascade.projection import Projection, check_finite, fit_projection
from smn_cli.cascade.router import unit
from smn_cli.cascade.whitening import Whitening, fit_whitening
from smn_cli.errors import ClashError, DataError, UsageError

KINDS: tuple[str, ...] = get_args(CombinationKind)
WHITENED_DIM = 256
"""Default width of "whitened": 33 kB of matrix; wider ones weigh more than they bring."""
MODES: tuple[str, ...] = get_args(Mode)
MAX_SIGNS = 1 << 28
"""Random signs of a block: two gigabytes in double precision, and a file needs no bytes to promise more."""
_ROWS = 4096
"""Rows that are worked on at a time, in double precision."""


@dataclass(frozen=True)
class Combination:
    """How blocks become one vector.

    Attributes:
        kind: "none": the blocks side by side, nothing stored; "random": their projection by seeded random signs, less a
            centre and divided by one scale, which are stored; "whitened": that projection whitened by a triangular
            matrix; "blocks": a whitening PCA for each block; "pca": one over all blocks, the paper's.
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

    def __post_init__(self) -> None:
        if self.kind in ("random", "whitened") and self.num_features * self.dim > MAX_SIGNS:
            raise UsageError(f"dim {self.dim} of {self.num_features} features needs more than {MAX_SIGNS:,} signs")

    @property
    def num_bytes(self) -> int:
        """Bytes of its tensors in a file."""
        return sum(tensor.nbytes for tensor in self.tensors.values())

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
        _check_blocks(blocks, routes, self.mode)
        if len(blocks) != self.num_blocks or blocks[0].shape[1] != self.num_features:
            raise UsageError(
                f"{len(blocks)} blocks of {blocks[0].shape[1]} features: this combination takes {self.num_blocks} of "
                f"{self.num_features}"
            )
        parts = [self._combine(rows, chosen) for rows, chosen in _in_parts(blocks, routes)]
        return torch.cat(parts) if parts else torch.empty(0, self.dim)

    def _combine(self, blocks: list[Tensor], routes: Tensor | None) -> Tensor:
        zeroed = _zeroed(blocks, routes)
        if self.kind == "none":
            return torch.cat(list(zeroed), dim=1)
        if self.kind == "random":
            centre, scale = self.tensors["centre"].double(), self.tensors["scale"].double()
            return ((self._signed(zeroed) - centre) * scale).float()
        if self.kind == "whitened":
            return Whitening(**self.tensors).apply(self._signed(zeroed)).float()
        if self.kind == "blocks":
            each = [Projection.of(self.tensors, f"{number}.").project(block) for number, block in enumerate(zeroed)]
            return torch.cat(each, dim=1).float()
        return Projection.of(self.tensors).project(torch.cat(list(zeroed), dim=1)).float()

    def _signed(self, blocks: Iterator[Tensor]) -> Tensor:
        total = torch.zeros(())
        for number, block in enumerate(blocks):
            total = total + block.double() @ random_signs(self.num_features, self.dim, self.seed, number).double()
        return total


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
        dim: width of the result; None for F, or `WHITENED_DIM` for "whitened", or (E + 1) F for "none", which is its
            only one. "whitened", "blocks" and "pca" give no more components than the images tell apart.
        seed: of the projection.

    Raises:
        UsageError: as in `plain_combination`.
        DataError: features that are no finite numbers, or too few of them.
    """
    mode = "unconditional" if routes is None else "conditional"
    _check_blocks(blocks, routes, mode)
    plain = plain_combination(len(blocks), blocks[0].shape[1], mode=mode, kind=kind, dim=dim, seed=seed)
    for block in _zeroed(list(blocks), routes):
        check_finite(block)
    if kind == "none":
        return plain
    if kind in ("random", "whitened"):
        return _fit_signed(plain, blocks, routes)
    if kind == "blocks":
        each = _fit_blocks(blocks, routes, plain.dim // len(blocks), seed)
        return replace(plain, tensors=each, dim=sum(len(each[f"{n}.axes"]) for n in range(len(blocks))))
    fitted = fit_projection(torch.cat(list(_zeroed(list(blocks), routes)), dim=1), plain.dim, seed=seed)
    return replace(plain, tensors=fitted.tensors(), dim=len(fitted.axes))


def plain_combination(
    num_blocks: int, num_features: int, *, mode: str, kind: str, dim: int | None, seed: int
) -> Combination:
    """What can be said of a combination before there are any features: all but its tensors.

    Args:
        num_blocks, num_features: E + 1 and F.
        mode: see `Combination`.
        kind, dim, seed: as in `fit_combination`.

    Raises:
        UsageError: unknown kind, or a `dim` that is not there to be had.
    """
    width = num_blocks * num_features
    if kind not in KINDS:
        raise UsageError(f"combination {kind!r} is unknown: expected one of {', '.join(KINDS)}")
    if kind == "none" and dim not in (None, width):
        raise ClashError(
            f"`dim` {dim}: blocks side by side have {width} features, which cannot be chosen; give another `combine`",
            "dim",
            ["combine"],
        )
    widest = {"none": width, "whitened": min(WHITENED_DIM, width)}.get(kind, num_features)
    wanted = widest if dim is None else dim
    if not (num_blocks if kind == "blocks" else 1) <= wanted <= width:
        raise UsageError(f"`dim` {wanted} is not to be had from {num_blocks} blocks of {num_features} features")
    return Combination(kind, mode, num_blocks, num_features, wanted, seed, {})


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


def random_signs(num_features: int, dim: int, seed: int, block: int) -> Tensor:
    """(num_features, dim) float32 of -1 and 1, the same everywhere: bits of SHAKE-256."""
    num_bits = num_features * dim
    stream = hashlib.shake_256(f"smn.signs/{seed}/{block}".encode()).digest((num_bits + 7) // 8)
    bits = np.unpackbits(np.frombuffer(stream, dtype=np.uint8), count=num_bits, bitorder="little")
    return torch.from_numpy(bits).view(num_features, dim).float() * 2 - 1


def _fit_signed(plain: Combination, blocks: Sequence[Tensor], routes: Tensor | None) -> Combination:
    whitens = plain.kind == "whitened"
    plain = replace(plain, dim=min(plain.dim, max(len(blocks[0]) - 1, 1)) if whitens else plain.dim)
    signed = torch.cat([plain._signed(_zeroed(rows, chosen)) for rows, chosen in _in_parts(blocks, routes)])
    if float(signed.std(dim=0, correction=0).max()) < 1e-5:
        raise DataError("all images have the same features: there is nothing to combine")
    if whitens:
        return replace(plain, tensors=vars(fit_whitening(signed)))
    centre = signed.mean(dim=0).half()
    spread = (signed - centre.double()).square().mean().sqrt()
    return replace(plain, tensors={"centre": centre, "scale": (1 / spread).float().view(1)})


def _fit_blocks(blocks: Sequence[Tensor], routes: Tensor | None, dim: int, seed: int) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for number, block in enumerate(_zeroed(list(blocks), routes)):
        tensors.update(fit_projection(block, dim, seed=seed).tensors(f"{number}."))
    return tensors


def _zeroed(blocks: list[Tensor], routes: Tensor | None) -> Iterator[Tensor]:
    """Blocks at unit length, in turn; rows of experts that an image was not sent to are zero."""
    for number, block in enumerate(blocks):
        rows = unit(block)
        if routes is not None and number > 0:
            rows = torch.where((routes.cpu() == number - 1)[:, None], rows, 0.0)
        yield rows


def _in_parts(blocks: Sequence[Tensor], routes: Tensor | None) -> Iterator[tuple[list[Tensor], Tensor | None]]:
    for start in range(0, len(blocks[0]), _ROWS):
        part = slice(start, start + _ROWS)
        yield [block[part] for block in blocks], None if routes is None else routes[part]


def _check_blocks(blocks: Sequence[Tensor], routes: Tensor | None, mode: str) -> None:
    if not blocks or any(block.ndim != 2 or block.shape != blocks[0].shape for block in blocks):
        raise UsageError("blocks must be matrices (N, F) of one shape, one or more of them")
    if (mode == "conditional") == (routes is None):
        raise UsageError(f"a combination that is {mode} {'needs' if routes is None else 'takes no'} routes")
    if routes is None:
        return
    if routes.shape != (len(blocks[0]),) or (
        len(routes) and not 0 <= int(routes.min()) <= int(routes.max()) < len(blocks) - 1
    ):
        raise UsageError(f"routes must be one of {len(blocks) - 1} experts for each of {len(blocks[0])} images")
