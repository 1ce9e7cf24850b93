"""The cascade file: one safetensors file of a dispatcher, experts, router and combination (docs/format.md)."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from smn_cli.adapters.adapter import adapter_from_bytes
from smn_cli.adapters.container import read_bytes, unseal
from smn_cli.atomic import write_atomically
from smn_cli.cascade.cascade import Cascade, check_statistics
from smn_cli.cascade.combining import KINDS, MODES, Combination
from smn_cli.cascade.expert import Expert
from smn_cli.cascade.router import CLUSTERINGS, Router
from smn_cli.cascade.schema import CascadeHeader, parse_cascade_header
from smn_cli.errors import AdapterFileError, UsageError
from smn_cli.recognise import CASCADE_TENSOR

_KINDS = {"F32": "<f4", "F16": "<f2", "I8": "i1"}

Parts = dict[str, dict[str, Any]]


def save_cascade(path: str | Path, cascade: Cascade) -> None:
    """Write a cascade file, atomically.

    Raises:
        OSError: the folder is missing or not writable.
    """
    write_atomically(Path(path), cascade.to_bytes())


def load_cascade(path: str | Path) -> Cascade:
    """Read a cascade file.

    Raises:
        AdapterFileError: missing, truncated, altered, or not a cascade.
    """
    return cascade_from_bytes(read_bytes(path), source=str(path))


def load_expert(path: str | Path, number: int) -> Expert:
    """One expert of a cascade file.

    Raises:
        AdapterFileError: as in `load_cascade`.
        UsageError: it has no expert of that number.
    """
    experts = load_cascade(path).experts
    if not 0 <= number < len(experts):
        raise UsageError(f"`expert` {number}: {path} has experts 0 to {len(experts) - 1}")
    return experts[number]


def cascade_from_bytes(data: bytes, *, source: str = "the data") -> Cascade:
    """Cascade of a file's bytes; see `load_cascade`."""
    try:
        return _parse(data)
    except AdapterFileError as error:
        raise AdapterFileError(f"{source} cannot be used: {error}") from None


def _parse(data: bytes) -> Cascade:
    tensors, text = unseal(data, {CASCADE_TENSOR: "U8", "experts": "U8"}, what="a cascade")
    header = parse_cascade_header(text)
    if header.mode not in MODES:
        raise AdapterFileError(f"mode {header.mode!r:.40} is unknown to this smn: update smn-cli")
    dispatcher = adapter_from_bytes(bytes(tensors[CASCADE_TENSOR]["data"]), source="its dispatcher")
    coded = bytes(tensors["experts"]["data"])
    if len(coded) != sum(sum(entry.num_bytes) for entry in header.experts):
        raise AdapterFileError(f"the experts have {len(coded)} bytes, which are not those that the header lists")
    try:
        check_statistics(dispatcher, header.experts)
        experts, start = [], 0
        for entry in header.experts:
            end = start + sum(entry.num_bytes)
            experts.append(Expert(dispatcher, entry, coded[start:end]))
            start = end
        router = _router(header, tensors)
        return Cascade(dispatcher, tuple(experts), router, _combination(header, tensors, router), header.provenance)
    except UsageError as error:
        raise AdapterFileError(str(error)) from None


def _router(header: CascadeHeader, tensors: Parts) -> Router:
    if header.router_kind not in CLUSTERINGS:
        raise AdapterFileError(f"router {header.router_kind!r:.40} is unknown to this smn: update smn-cli")
    found = _projection(tensors, "router.")
    dim, num_experts = len(found["scales"]), len(header.experts)
    found["centres"] = _tensor(tensors, "router.centres", "F32", (num_experts, dim))
    found["biases"] = _tensor(tensors, "router.biases", "F32", (num_experts,))
    if header.router_kind == "gmm":
        found["precisions"] = _tensor(tensors, "router.precisions", "F16", (num_experts, dim * (dim + 1) // 2))
    return Router(header.router_kind, found)


def _combination(header: CascadeHeader, tensors: Parts, router: Router) -> Combination:
    kind, num_blocks, num_features = header.combination_kind, len(header.experts) + 1, router.num_features
    if kind not in KINDS:
        raise AdapterFileError(f"combination {kind!r:.40} is unknown to this smn: update smn-cli")
    width, dim = num_blocks * num_features, header.dim
    if not 0 < dim <= width or (kind == "none" and dim != width):
        raise AdapterFileError(f"combination {kind} has dim {dim} of {num_blocks} blocks of {num_features} features")
    found: dict[str, Tensor] = {}
    if kind == "random":
        found["centre"] = _tensor(tensors, "combination.centre", "F16", (dim,))
        found["scale"] = _tensor(tensors, "combination.scale", "F32", (1,))
    elif kind == "whitened":
        found["centre"] = _tensor(tensors, "combination.centre", "F16", (dim,))
        found["triangle"] = _tensor(tensors, "combination.triangle", "I8", (dim * (dim + 1) // 2,))
        found["scales"] = _tensor(tensors, "combination.scales", "F32", (dim,))
    elif kind == "pca":
        found = _projection(tensors, "combination.", shape=(dim, width))
    elif kind == "blocks":
        for number in range(num_blocks):
            each = _projection(tensors, f"combination.{number}.", num_features=num_features)
            found.update({f"{number}.{name}": tensor for name, tensor in each.items()})
        if sum(len(found[f"{number}.axes"]) for number in range(num_blocks)) != dim:
            raise AdapterFileError(f"the blocks' components are not the {dim} that the header promises")
    return Combination(kind, header.mode, num_blocks, num_features, dim, header.seed, found)


def _projection(
    tensors: Parts, prefix: str, *, shape: tuple[int, int] | None = None, num_features: int | None = None
) -> dict[str, Tensor]:
    axes = _tensor(tensors, f"{prefix}axes", "I8", shape)
    if axes.ndim != 2 or 0 in axes.shape or num_features not in (None, axes.shape[1]):
        raise AdapterFileError(f"the tensor '{prefix}axes' has no usable shape {tuple(axes.shape)}")
    length = (len(axes),)
    return {
        "axes": axes,
        "scales": _tensor(tensors, f"{prefix}scales", "F32", length),
        "offsets": _tensor(tensors, f"{prefix}offsets", "F32", length),
    }


def _tensor(tensors: Parts, name: str, kind: str, shape: tuple[int, ...] | None) -> Tensor:
    if name not in tensors:
        raise AdapterFileError(f"it lacks the tensor {name!r}")
    found = tensors[name]
    if found["dtype"] != kind or (shape is not None and tuple(found["shape"]) != shape):
        raise AdapterFileError(
            f"the tensor {name!r} is {found['dtype']} {tuple(found['shape'])}: expected {kind} {shape or ''}".rstrip()
        )
    values = np.frombuffer(found["data"], dtype=_KINDS[kind]).reshape(found["shape"])
    if not np.isfinite(values).all():
        raise AdapterFileError(f"the tensor {name!r} holds values that are not finite numbers")
    return torch.from_numpy(values.astype(values.dtype.newbyteorder("=")))
