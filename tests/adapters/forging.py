"""Adapter files made by hand: a toy base, a toy adapter, and files that lie but carry a correct checksum."""

import hashlib
import json
from typing import Any

import numpy as np
import torch

from smn_cli.adapters.adapter import Adapter, make_adapter

Parts = dict[str, tuple[str, list[int], bytes]]
"""Tensor name to safetensors dtype, shape and bytes, in the order of the file."""


def toy_base() -> dict[str, torch.Tensor]:
    """A convolution, a normalisation and a linear layer, with values told by their position."""
    return {
        "conv.weight": (torch.arange(54.0).view(3, 2, 3, 3) - 20) / 7,
        "norm.running_mean": torch.tensor([0.25, -0.5, 1.5]),
        "norm.running_var": torch.tensor([1.0, 2.0, 0.5]),
        "norm.num_batches_tracked": torch.tensor(7),
        "fc.weight": (torch.arange(15.0).view(5, 3) + 1) / 3,
    }


def toy_masks() -> dict[str, torch.Tensor]:
    """Every fifth weight of `conv.weight` and two of `fc.weight` are cut."""
    conv = torch.arange(54).view(3, 2, 3, 3) % 5 != 4
    fc = torch.ones(5, 3, dtype=torch.bool)
    fc[0, 1] = fc[4, 2] = False
    return {"conv.weight": conv, "fc.weight": fc}


def toy_statistics() -> dict[str, torch.Tensor]:
    """New running statistics for `norm`; a third is not a short binary fraction."""
    return {
        "norm.running_mean": torch.tensor([1 / 3, -0.0, 1e-30]),
        "norm.running_var": torch.tensor([0.1, 7.0, 3.25]),
    }


def toy_adapter(codec: str = "bits", *, statistics: bool = True) -> Adapter:
    """An adapter over `toy_base`."""
    return make_adapter(
        toy_base(),
        toy_masks(),
        arch="toy",
        tag="made_up",
        codec=codec,
        norm_stats=toy_statistics() if statistics else None,
        preprocessing={"size": 32, "mean": [0.5, 0.5, 0.5]},
        provenance={"seed": 3},
    )


def take_apart(data: bytes) -> tuple[dict[str, Any], Parts]:
    """Header and tensors of a file, by the safetensors container's own rules; the checksum is left out."""
    length = int.from_bytes(data[:8], "little")
    container = json.loads(data[8 : 8 + length])
    header = json.loads(container.pop("__metadata__")["smn"])
    parts: Parts = {}
    for name, info in sorted(container.items(), key=lambda item: item[1]["data_offsets"]):
        start, end = (8 + length + offset for offset in info["data_offsets"])
        parts[name] = (info["dtype"], info["shape"], data[start:end])
    parts.pop("sha256")
    return header, parts


def put_together(header: dict[str, Any] | str, parts: Parts) -> bytes:
    """A file with a correct checksum from any header, as a value or as raw text, and any tensors."""
    text = header if isinstance(header, str) else json.dumps(header, sort_keys=True, separators=(",", ":"))
    container: dict[str, Any] = {"__metadata__": {"smn": text}}
    body = b""
    for name, (dtype, shape, content) in {**parts, "sha256": ("U8", [32], bytes(32))}.items():
        container[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(body), len(body) + len(content)]}
        body += content
    encoded = json.dumps(container, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)
    return sign(len(encoded).to_bytes(8, "little") + encoded + body)


def sign(data: bytes) -> bytes:
    """The same bytes with the checksum at their end made right."""
    return data[:-32] + hashlib.sha256(data[:-32]).digest()


def random_masks(base: dict[str, torch.Tensor], *, density: float, seed: int = 0) -> dict[str, torch.Tensor]:
    """Random masks over all tensors of two or more dimensions, none of them empty."""
    generator = np.random.default_rng(seed)
    masks = {}
    for name, tensor in base.items():
        if tensor.dim() >= 2:
            mask = torch.from_numpy(generator.random(tuple(tensor.shape)) < density)
            mask.view(-1)[0] = True
            masks[name] = mask
    return masks
