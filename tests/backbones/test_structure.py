"""Blocks are where timm has them; idle biases are those that change no output."""

import pytest
import timm
import torch
from torch import nn

from smn_cli.backbones.structure import block_names, idle_biases
from smn_cli.masking.backbone import MaskedBackbone, run_backbone
from smn_cli.masking.scores import magnitude_scores
from tests.conftest import VIT, meta_model
from tests.masking.test_backbone import build


@pytest.mark.parametrize(
    ("arch", "names"),
    [
        ("resnet50", [f"layer{n}" for n in (1, 2, 3, 4)]),
        ("resnet18d", [f"layer{n}" for n in (1, 2, 3, 4)]),  # a stem of three convolutions
        ("efficientnet_lite0", [f"blocks.{n}" for n in range(7)]),
        ("mobilenetv3_small_050", [f"blocks.{n}" for n in range(6)]),
        ("vit_tiny_patch16_224", [f"blocks.{n}" for n in range(12)]),
        ("convnext_atto", [f"stages.{n}" for n in range(4)]),
        ("swin_tiny_patch4_window7_224", [f"layers.{n}" for n in range(4)]),
        ("regnety_002", [f"s{n}" for n in (1, 2, 3, 4)]),
        ("vgg11", []),  # timm lists activations only
    ],
)
def test_blocks_are_stages_and_transformer_blocks_without_the_stem(arch: str, names: list[str]) -> None:
    assert block_names(meta_model(arch)) == names


def test_a_network_of_no_library_has_no_blocks() -> None:
    assert block_names(nn.Sequential(nn.Linear(2, 2))) == []


@pytest.mark.parametrize(
    ("arch", "num"),
    [
        ("vit_tiny_patch16_224", 12),
        ("swin_tiny_patch4_window7_224", 12),
        ("resnet18", 0),
        ("eva02_tiny_patch14_224", 0),  # keys turned by position
    ],
)
def test_key_biases_are_the_middle_third_where_softmax_cancels_them(arch: str, num: int) -> None:
    model = meta_model(arch)
    found = idle_biases(model)
    assert len(found) == num
    for name, part in found.items():
        width = model.get_parameter(name).numel() // 3
        assert (part.start, part.stop) == (width, 2 * width)


def test_normalised_keys_are_not_idle() -> None:
    model = timm.create_model("vit_tiny_patch16_224", num_classes=0, qk_norm=True)
    assert idle_biases(model) == {}


def vit_with_biases() -> nn.Module:
    model = build(VIT)
    with torch.no_grad():
        for name in idle_biases(model):
            model.get_parameter(name).normal_(0, 0.1)
    return model


def test_cutting_idle_biases_changes_outputs_by_rounding_alone() -> None:
    model, images = vit_with_biases(), torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        before = model(images)
        for name, part in idle_biases(model).items():
            model.get_parameter(name)[part] = 0
        after = model(images)
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-5)
    assert len(idle_biases(model)) == 6


def test_the_gradient_of_idle_biases_is_noise_beside_that_of_queries_and_values() -> None:
    model = vit_with_biases()
    idle = idle_biases(model)
    masked = MaskedBackbone(model, {name: magnitude_scores(model.get_parameter(name)) for name in idle})
    weights = masked.effective_weights()
    for weight in weights.values():
        weight.retain_grad()
    features = run_backbone(model, torch.randn(16, 3, 32, 32), weights)
    nn.functional.cosine_similarity(features, torch.randn_like(features)).mean().backward()  # type: ignore[no-untyped-call]
    for name, part in idle.items():
        gradient = weights[name].grad
        assert isinstance(gradient, torch.Tensor)
        queries, keys = gradient[: part.start].norm(), gradient[part].norm()
        assert float(keys) < 1e-4 * float(queries)
