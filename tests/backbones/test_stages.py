"""Stages against the same blocks run by hand, for the layouts that timm's networks have."""

from collections.abc import Callable

import pytest
import timm
import torch
from torch import Tensor, nn

from smn_cli.backbones.loading import feature_width
from smn_cli.backbones.stages import has_stages, stage_features, with_stages
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


class Blocks(nn.Module):
    """A network that timm would list two blocks of, which put out what they are told to."""

    num_features = 6
    feature_info = ({"module": "blocks.0", "num_chs": 6}, {"module": "blocks.1", "num_chs": 6})

    def __init__(self, put_out: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 1)
        self.blocks = nn.ModuleList([Told(put_out), Told(put_out)])

    def forward(self, images: Tensor) -> Tensor:
        maps: Tensor = self.stem(images)
        for block in self.blocks:
            block(maps)
        return maps.mean((2, 3))


class Told(nn.Module):
    """A block with a weight of its own."""

    def __init__(self, put_out: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.weight = nn.Conv2d(6, 6, 1)
        self.put_out = put_out

    def forward(self, maps: Tensor) -> object:
        return self.put_out(maps)


def test_what_puts_out_neither_maps_nor_tokens_has_no_stages() -> None:
    assert has_stages(Blocks(lambda maps: maps), 32)
    pairs = Blocks(lambda maps: (maps, maps))
    assert not has_stages(pairs, 32)
    with pytest.raises(BackboneError, match=r"blocks\.0 of Blocks puts out neither maps nor tokens"):
        with_stages(pairs)(torch.zeros(1, 3, 32, 32))
    assert not any(module._forward_hooks for module in pairs.modules())
    assert not has_stages(nn.Linear(2, 2), 32)


def test_channels_are_found_where_they_lie() -> None:
    images = torch.rand(2, 3, 16, 16)
    with torch.inference_mode():
        model = Blocks(lambda maps: maps)
        first = with_stages(model)(images)[1]
        for block in model.blocks:
            block.put_out = lambda maps: maps.permute(0, 2, 3, 1)  # type: ignore[assignment]
        torch.testing.assert_close(with_stages(model)(images)[1], first)


@pytest.mark.parametrize("arch", [RESNET, CONVNET, VIT, "mobilenetv3_small_050", "efficientnet_lite0"])
def test_stages_are_read_whether_activations_are_kept_or_not(arch: str) -> None:
    model = timm.create_model(arch, num_classes=0).eval()
    images = torch.rand(1, 3, *model.default_cfg["input_size"][1:])
    with torch.inference_mode():
        features, plain = with_stages(model)(images)
        model.set_grad_checkpointing(True)
        again, checkpointed = with_stages(model)(images)
    torch.testing.assert_close(checkpointed, plain)
    torch.testing.assert_close(again, features)
    assert features.shape[1] == feature_width(model)
    assert any(getattr(module, "grad_checkpointing", False) for module in model.modules())


def test_tokens_before_the_class_token_comes_have_none() -> None:
    tokens = torch.rand(2, 16, 6)
    model = Blocks(lambda _maps: tokens)
    model.num_prefix_tokens = 1  # type: ignore[assignment]
    with torch.inference_mode():
        found = with_stages(model, 1)(torch.rand(2, 3, 16, 16))[1]
    torch.testing.assert_close(found, torch.cat([tokens.mean(1), tokens.std(1, correction=0)], dim=1))
