"""Which architecture a state dict is of, told from its names and shapes, for messages."""

import re
from math import isqrt

import timm
from torch import Tensor

from smn_cli.backbones.resnets import resnet_of

_VITS = {(192, 12): "tiny", (384, 12): "small", (768, 12): "base", (1024, 24): "large", (1280, 32): "huge"}
"""timm's word for a width and a depth."""


def guess_arch(tensors: dict[str, Tensor], *, is_quick_gelu: bool = False) -> str | None:
    """A timm name that a state dict under timm's names may be of, or None.

    Args:
        tensors: by name; a prefix before the names does not matter.
        is_quick_gelu: whether a CLIP is known to have been trained with the quick GELU.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    for name, shape in shapes.items():
        for end, guess in (("patch_embed.proj.weight", _vit), ("layer1.0.conv1.weight", resnet_of)):
            if name.endswith(end) and len(shape) == 4:
                prefix = name.removesuffix(end)
                arch = guess({key.removeprefix(prefix): s for key, s in shapes.items() if key.startswith(prefix)})
                arch = arch.replace("_clip_", "_clip_quickgelu_") if arch and is_quick_gelu else arch
                return arch if arch and timm.is_model(arch) else None
    return None


def _vit(shapes: dict[str, tuple[int, ...]]) -> str | None:
    width, patch = shapes["patch_embed.proj.weight"][0], shapes["patch_embed.proj.weight"][-1]
    size, positions = _VITS.get((width, _count(shapes, "blocks"))), shapes.get("pos_embed", ())
    if size is None or len(positions) != 3:
        return None
    if "blocks.0.ls1.gamma" in shapes:
        return f"vit_{size}_patch{patch}_dinov2"
    kind = "clip_" if "norm_pre.weight" in shapes else ""
    return f"vit_{size}_patch{patch}_{kind}{isqrt(positions[1]) * patch}"


def _count(shapes: dict[str, tuple[int, ...]], stack: str) -> int:
    return len({found[1] for name in shapes if (found := re.match(rf"{stack}\.(\d+)\.", name))})
