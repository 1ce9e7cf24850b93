"""timm's plain ResNets by names and shapes alone: nothing of timm or torch is needed to know one."""

import re
from collections.abc import Collection, Mapping

RESNETS: dict[tuple[bool, tuple[int, ...]], str] = {
    (False, (2, 2, 2, 2)): "resnet18",
    (False, (3, 4, 6, 3)): "resnet34",
    (True, (3, 4, 6, 3)): "resnet50",
    (True, (3, 4, 23, 3)): "resnet101",
    (True, (3, 8, 36, 3)): "resnet152",
}
"""By whether blocks are bottlenecks, and their number a stage."""
CLASSIFIER = "fc"
"""What timm calls their last layer, which is linear and has a bias."""
_NORM = ("weight", "bias", "running_mean", "running_var")


def resnet_of(shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    """timm's name of the plain ResNet, of usual or double width, that tensors of these shapes may be of, or None.

    Args:
        shapes: by name, that of `layer1.0.conv1.weight` among them.
    """
    depths = tuple(_count(shapes, stage) for stage in (1, 2, 3, 4))
    arch = RESNETS.get(("layer1.0.conv3.weight" in shapes, depths))
    width, groups = shapes["layer1.0.conv1.weight"][0], shapes.get("layer1.0.conv2.weight", ())[1:2]
    # neither timm's variants with another stem nor those with grouped convolutions are told
    if arch is None or shapes.get("conv1.weight", ())[-1:] != (7,) or groups != (width,):
        return None
    return {64: arch, 128: f"wide_{arch}_2"}.get(width)


def is_whole_resnet(arch: str, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether these are all tensors of the plain ResNet of that name but classifier and counters, and no others."""
    if len(shapes.get("layer1.0.conv1.weight", ())) != 4 or resnet_of(shapes) != arch:
        return False
    name = arch.removeprefix("wide_").removesuffix("_2")
    return next(shapes.keys() == _names(*kind) for kind, found in RESNETS.items() if found == name)


def _names(is_bottleneck: bool, depths: tuple[int, ...]) -> Collection[str]:
    convolutions = (1, 2, 3) if is_bottleneck else (1, 2)
    names = {"conv1.weight", *(f"bn1.{part}" for part in _NORM)}
    for stage, depth in enumerate(depths, start=1):
        for block in range(depth):
            start = f"layer{stage}.{block}"
            for number in convolutions:
                names |= {f"{start}.conv{number}.weight", *(f"{start}.bn{number}.{part}" for part in _NORM)}
        if is_bottleneck or stage > 1:  # the first block of a stage, where the width changes
            start = f"layer{stage}.0.downsample"
            names |= {f"{start}.0.weight", *(f"{start}.1.{part}" for part in _NORM)}
    return names


def _count(shapes: Mapping[str, tuple[int, ...]], stage: int) -> int:
    return len({found[1] for name in shapes if (found := re.match(rf"layer{stage}\.(\d+)\.", name))})
