"""Which architecture a state dict is of, told from its names and shapes, for messages."""

import re
from math import isqrt

import timm
from torch import Tensor

_VITS = {(192, 12): "tiny", (384, 12): "small", (768, 12): "base", (1024, 24): "large", (1280, 32): "huge"}
"""timm's word for a width and a depth."""
_RESNETS: dict[tuple[bool, tuple[int, ...]], str] = {
    (False, (2, 2, 2, 2)): "resnet18",
    (False, (3, 4, 6, 3)): "resnet34",
    (True, (3, 4, 6, 3)): "resnet50",
    (True, (3, 4, 23, 3)): "resnet101",
    (True, (3, 8, 36, 3)): "resnet152",
}
"""By whether blocks are bottlenecks, and their number a stage."""


def guess_arch(tensors: dict[str, Tensor], *, is_quick_gelu: bool = False) -> str | None:
    """A timm name that a state dict under timm's names may be of, or None.

    Args:
        tensors: by name; a prefix before the names does not matter.
        is_quick_gelu: whether a CLIP is known to have been trained with the quick GELU.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    for name, shape in shapes.items():
        for end, guess in (("patch_embed.proj.weight", _vit), ("layer1.0.conv1.weight", _resnet)):
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


def _resnet(shapes: dict[str, tuple[int, ...]]) -> str | None:
    depths = tuple(_count(shapes, f"layer{stage}") for stage in (1, 2, 3, 4))
    arch = _RESNETS.get(("layer1.0.conv3.weight" in shapes, depths))
    width, groups = shapes["layer1.0.conv1.weight"][0], shapes.get("layer1.0.conv2.weight", ())[1:2]
    # neither timm's variants with another stem nor those with grouped convolutions are told
    if arch is None or shapes.get("conv1.weight", ())[-1:] != (7,) or groups != (width,):
        return None
    return {64: arch, 128: f"wide_{arch}_2"}.get(width)


def _count(shapes: dict[str, tuple[int, ...]], stack: str) -> int:
    return len({found[1] for name in shapes if (found := re.match(rf"{stack}\.(\d+)\.", name))})
