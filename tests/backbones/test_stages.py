"""Stages against the same blocks run by hand, for the layouts that timm's networks have."""

import pytest
import timm
import torch
from torch import nn

from smn_cli.backbones.stages import stage_features
from smn_cli.errors import BackboneError
from tests.conftest import CONVNET, RESNET, VIT


def test_of_a_convnet_means_and_deviations_of_the_last_maps() -> None:
    model = timm.create_model(RESNET, num_classes=0).eval()
    images = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        found = stage_features(model, 2)(images)
        third = model.layer3(model.layer2(model.layer1(model.maxpool(model.act1(model.bn1(model.conv1(images)))))))
        fourth = model.layer4(third)
    expected = [part for maps in (third, fourth) for part in (maps.mean((2, 3)), maps.flatten(2).std(2, correction=0))]
    torch.testing.assert_close(found, torch.cat(expected, dim=1))


def test_of_a_vit_class_token_and_patches() -> None:
    model = timm.create_model(VIT, num_classes=0).eval()
    images = torch.rand(2, 3, *model.default_cfg["input_size"][1:])
    seen = []
    handle = model.blocks[-1].register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    with torch.inference_mode():
        model(images)
        handle.remove()
        found = stage_features(model, 1)(images)
    tokens = seen[0]
    expected = [tokens[:, 0], tokens[:, 1:].mean(1), tokens[:, 1:].std(1, correction=0)]
    torch.testing.assert_close(found, torch.cat(expected, dim=1))


def test_channels_last_maps_are_pooled_over_positions() -> None:
    model = timm.create_model("swin_tiny_patch4_window7_224", num_classes=0, embed_dim=8, depths=(1, 1, 1, 1)).eval()
    with torch.inference_mode():
        found = stage_features(model)(torch.rand(1, 3, 224, 224))
    assert found.shape == (1, 2 * (8 + 16 + 32 + 64))


@pytest.mark.parametrize("arch", [CONVNET, VIT])
def test_nothing_stays_on_the_network(arch: str) -> None:
    model = timm.create_model(arch, num_classes=0).eval()
    run = stage_features(model)
    with torch.inference_mode():
        first = run(torch.ones(2, 3, *model.default_cfg["input_size"][1:]))
    with pytest.raises((RuntimeError, AssertionError)):
        run(torch.rand(2, 5, 160, 160))
    assert not any(module._forward_hooks for module in model.modules())
    assert first.isfinite().all()


def test_a_network_without_blocks_is_refused() -> None:
    with pytest.raises(BackboneError, match="Linear lists no stages to take features from"):
        stage_features(nn.Linear(2, 2))
