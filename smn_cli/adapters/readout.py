"""A readout as an adapter carries it: a linear map of features at 8 bits a weight (docs/format.md, "Readout").

What is used anywhere is what is stored: rounded first, its offsets made for the rounded matrix.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from smn_cli.adapters.head import LEVELS
from smn_cli.adapters.schema import ReadoutEntry
from smn_cli.errors import AdapterFileError, MismatchError
from smn_cli.schemas.adapter_files import ReadoutInFileJson
from smn_cli.schemas.readout_kinds import LinearKind

if TYPE_CHECKING:
    from torch import Tensor

    from smn_cli.evaluation.readouts import LinearReadout

PREFIX = "readout_"
_DTYPES = {"F32": "<f4", "F16": "<f2", "I8": "<i1"}


@dataclass(frozen=True, eq=False)
class StoredReadout:
    """Features (N, F) to d numbers each; whoever compares them takes cosines, or scales rows to length 1 first.

        vectors = adapter.readout(features)

    Attributes:
        entry: its kind and sizes, as in the header.
        parts: by name, as in the file: `mean` (F,) float16 of a centred one; else `levels` (d, F) int8, `scales` (d,)
            and `bias` (d,) float32, and of one that reads the stages `inputs` (F,) float32.
    """

    entry: ReadoutEntry
    parts: Mapping[str, np.ndarray]

    def __repr__(self) -> str:
        """Kind, features, numbers given."""
        return f"StoredReadout({self.kind!r}, num_features={self.num_features}, dim={self.dim})"

    @property
    def kind(self) -> LinearKind:
        """ "centred", "whitened" or "stages"."""
        return self.entry.kind

    @property
    def reads_stages(self) -> bool:
        """Whether it takes what `smn_cli.backbones.stages` gives, not the features of the last layer."""
        return self.kind == "stages"

    @property
    def num_features(self) -> int:
        """F, the width of what it takes."""
        return self.entry.num_features

    @property
    def dim(self) -> int:
        """The d numbers that it gives."""
        return self.entry.dim

    @property
    def nbytes(self) -> int:
        """Size of the stored tensors."""
        return int(sum(array.nbytes for array in self.parts.values()))

    @property
    def digest(self) -> str:
        """SHA-256 over the stored tensors in the order of their names, 64 hex characters."""
        return hashlib.sha256(b"".join(self.parts[name].tobytes() for name in sorted(self.parts))).hexdigest()

    def to_json(self) -> ReadoutInFileJson:
        """What the header says of it, and its digest."""
        entry = self.entry
        return {
            "kind": entry.kind,
            "dim": entry.dim,
            "features": entry.num_features,
            "images": entry.num_images,
            "bits": entry.bits,
            "digest": self.digest,
        }

    def arrays(self) -> dict[str, np.ndarray]:
        """The tensors of the file."""
        return {f"{PREFIX}{name}": array for name, array in self.parts.items()}

    def layer(self) -> "tuple[Tensor, Tensor]":
        """Weight (d, F) and bias (d,), float32, of the linear layer that it is over the last features.

        Raises:
            MismatchError: it reads the stages.
        """
        if self.reads_stages:
            raise MismatchError("the readout reads the stages: it is no layer over the last features")
        import torch

        if self.kind == "centred":
            return torch.eye(self.num_features), -self._tensors["mean"]
        return self._weight, self._tensors["bias"]

    def __call__(self, features: "Tensor") -> "Tensor":
        """(N, F) features on any device to (N, d) float32 there.

        Raises:
            MismatchError: they are of another width.
        """
        from torch.nn import functional

        if features.ndim != 2 or features.shape[1] != self.num_features:
            raise MismatchError(f"the readout takes (N, {self.num_features}) features: found {tuple(features.shape)}")
        rows = features.float()
        if self.kind == "centred":
            return rows - self._tensors["mean"].to(rows.device)
        rows = rows * self._tensors["inputs"].to(rows.device) if self.reads_stages else rows
        return functional.linear(rows, self._weight.to(rows.device), self._tensors["bias"].to(rows.device))

    @cached_property
    def _tensors(self) -> "dict[str, Tensor]":
        import torch

        with torch.inference_mode(False):  # kept for passes of every kind
            return {name: torch.from_numpy(part.astype(np.float32)) for name, part in self.parts.items()}

    @cached_property
    def _weight(self) -> "Tensor":
        """One float32 product each, the same on every machine."""
        import torch

        with torch.inference_mode(False):
            return self._tensors["levels"] * self._tensors["scales"][:, None]


def store_readout(readout: "LinearReadout", kind: LinearKind, *, num_images: int) -> StoredReadout:
    """Round a readout to what an adapter carries.

    Args:
        readout: as fitted.
        kind: of it.
        num_images: that it was fitted to.

    Raises:
        ValueError: a number is not finite, or a mean is above what 16 bits hold.
    """
    num_features = len(readout.mean)
    with np.errstate(over="ignore", invalid="ignore"):  # what is no number is refused below
        if readout.weight is None:
            parts: dict[str, np.ndarray] = {"mean": readout.mean.numpy().astype(np.float16)}
        else:
            weight = readout.weight.numpy()
            scales = (np.abs(weight).max(axis=1) / LEVELS).astype(np.float32)
            steps = np.divide(weight, scales[:, None], out=np.zeros_like(weight), where=scales[:, None] > 0)
            levels = np.clip(np.rint(steps), -LEVELS, LEVELS).astype(np.int8)
            used = levels.astype(np.float32) * scales[:, None]
            bias = -(used.astype(np.float64) @ readout.mean.numpy())
            parts = {"levels": levels, "scales": scales, "bias": bias.astype(np.float32)}
    if readout.inputs is not None:
        parts["inputs"] = readout.inputs.numpy()
    if not all(np.isfinite(part).all() for part in parts.values()):
        raise ValueError("a readout of features that are infinite, no numbers, or too large")
    dim = num_features if readout.weight is None else len(readout.weight)
    return StoredReadout(ReadoutEntry(kind, dim, num_features, num_images), parts)


def read_readout(entry: ReadoutEntry, tensors: dict[str, dict[str, Any]]) -> StoredReadout:
    """The readout of a file, its tensors held against the header before anything is made of them.

    Raises:
        AdapterFileError: a tensor is missing, of another type or shape, or holds numbers of no meaning.
    """
    parts: dict[str, np.ndarray] = {}
    for part, (kind, shape) in _layout(entry).items():
        name = f"{PREFIX}{part}"
        if name not in tensors:
            raise AdapterFileError(f"the header has a readout, but the tensor {name!r} is missing")
        found = tensors[name]
        if found["dtype"] != kind or found["shape"] != shape:
            raise AdapterFileError(
                f"the tensor {name!r} is {found['dtype']} {found['shape']}: the readout is {kind} {shape}"
            )
        values = np.frombuffer(found["data"], dtype=_DTYPES[kind]).reshape(shape)
        parts[part] = values.astype(_DTYPES[kind][1:])
    largest = dict.fromkeys(parts, np.float32(1)) | {"scales": np.float32(LEVELS)}
    with np.errstate(over="ignore", invalid="ignore"):  # a signalling NaN is invalid in any product
        is_finite = all(np.isfinite(part * largest[name]).all() for name, part in parts.items())
    is_negative = any((parts[name] < 0).any() for name in ("scales", "inputs") if name in parts)
    if not is_finite or is_negative or ("levels" in parts and (parts["levels"] < -LEVELS).any()):
        raise AdapterFileError(
            "its readout holds scales that are negative, levels below -127 or numbers that are not finite"
        )
    return StoredReadout(entry, parts)


def _layout(entry: ReadoutEntry) -> dict[str, tuple[str, list[int]]]:
    """Type and shape of each part by name."""
    if entry.kind == "centred":
        return {"mean": ("F16", [entry.num_features])}
    parts = {
        "levels": ("I8", [entry.dim, entry.num_features]),
        "scales": ("F32", [entry.dim]),
        "bias": ("F32", [entry.dim]),
    }
    return parts | ({"inputs": ("F32", [entry.num_features])} if entry.kind == "stages" else {})
