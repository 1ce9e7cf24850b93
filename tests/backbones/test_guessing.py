"""The architecture of a state dict is told from names and shapes, or not guessed at all."""

import pytest
import timm
import torch

from smn_cli.backbones.guessing import guess_arch
from tests.backbones.foreign import prefixed

CLIP_VIT, QUICK_VIT = "vit_base_patch32_clip_224", "vit_base_patch32_clip_quickgelu_224"
KNOWN_ARCHS = [
    *("resnet18", "resnet34", "resnet50", "resnet101", "wide_resnet50_2"),
    *("vit_tiny_patch16_224", "vit_small_patch8_224", "vit_base_patch16_384", "vit_large_patch16_224"),
    *("vit_small_patch14_dinov2", CLIP_VIT, "vit_large_patch14_clip_224"),
]


@pytest.mark.parametrize(
    "arch",
    KNOWN_ARCHS,
)
def test_architectures_are_told_from_names_and_shapes(arch: str) -> None:
    with torch.device("meta"):
        state = timm.create_model(arch, pretrained=False).state_dict()
    assert guess_arch(state) == arch
    assert guess_arch(prefixed("net.", state)) == arch


@pytest.mark.parametrize("arch", ["resnet50d", "resnext50_32x4d", "convnext_atto", "mobilenetv3_small_050"])
def test_what_is_not_known_is_not_guessed(arch: str) -> None:
    with torch.device("meta"):
        state = timm.create_model(arch, pretrained=False).state_dict()
    assert guess_arch(state) is None


def test_the_quick_gelu_is_part_of_the_guess() -> None:
    with torch.device("meta"):
        state = timm.create_model(CLIP_VIT, pretrained=False).state_dict()
    assert guess_arch(state, is_quick_gelu=True) == QUICK_VIT
