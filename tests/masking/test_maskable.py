"""Scores go to the weights of convolution and linear layers and to nothing else."""

import pytest
from torch import nn

from smn_cli.masking.maskable import is_depthwise, maskable_names
from smn_cli.recipes import RECIPES
from tests.conftest import CONVNET, RESNET, VIT, meta_model

NEVER = (
    nn.modules.batchnorm._BatchNorm,
    nn.GroupNorm,
    nn.LayerNorm,
    nn.Embedding,
)


def count(model: nn.Module, names: list[str]) -> int:
    return sum(model.get_parameter(name).numel() for name in names)


def test_resnet50_has_the_papers_counts_of_maskable_weights() -> None:
    model = meta_model("resnet50")
    paper = RECIPES["paper"]
    plain = maskable_names(model, include_depthwise=True, include_stem=True)
    asked = maskable_names(model, include_depthwise=True, include_stem=True, also=paper.mask_also)
    assert (len(plain), count(model, plain)) == (53, 23_454_912)
    assert (len(asked), count(model, asked)) == (61, 23_462_592)
    extra = [f"layer{n}.0.downsample.1.{part}" for n in (1, 2, 3, 4) for part in ("bias", "weight")]
    assert sorted(set(asked) - set(plain)) == extra


def test_resnet18_has_the_papers_count() -> None:
    model = meta_model("resnet18")
    asked = maskable_names(model, include_depthwise=True, include_stem=True, also=RECIPES["paper"].mask_also)
    assert count(model, asked) == 11_168_704


@pytest.mark.parametrize("arch", [CONVNET, VIT, RESNET, "convnext_atto", "mobilenetv3_small_050"])
def test_masked_are_weights_of_convolution_and_linear_layers_and_all_of_them(arch: str) -> None:
    model = meta_model(arch)
    names = maskable_names(model, include_depthwise=True, include_stem=True)
    layers = {name.rpartition(".")[0]: model.get_submodule(name.rpartition(".")[0]) for name in names}
    assert all(name.endswith(".weight") for name in names)
    assert not any(isinstance(layer, NEVER) for layer in layers.values())
    matrices = {name for name, p in model.named_parameters() if p.dim() >= 2 and name.endswith(".weight")}
    assert set(names) == matrices


@pytest.mark.parametrize("arch", [VIT, "vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224"])
def test_a_vit_masks_fused_qkv_and_neither_tokens_nor_positions_nor_norms(arch: str) -> None:
    model = meta_model(arch)
    names = maskable_names(model, include_depthwise=True, include_stem=True)
    blocks = sorted({name.split(".")[1] for name, _ in model.named_parameters() if name.startswith("blocks.")})
    parts = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    expected = {f"blocks.{block}.{part}.weight" for block in blocks for part in parts}
    assert set(names) == expected | {"patch_embed.proj.weight"}
    assert {"cls_token", "pos_embed"} <= dict(model.named_parameters()).keys()


@pytest.mark.parametrize(
    ("arch", "stem"), [(CONVNET, "conv_stem.weight"), (VIT, "patch_embed.proj.weight"), ("resnet50", "conv1.weight")]
)
def test_the_stem_is_the_first_layer_and_can_be_left_out(arch: str, stem: str) -> None:
    model = meta_model(arch)
    everything = maskable_names(model, include_depthwise=True, include_stem=True)
    assert everything[0] == stem
    assert maskable_names(model, include_depthwise=True, include_stem=False) == everything[1:]


def test_depthwise_convolutions_can_be_left_out() -> None:
    model = meta_model(CONVNET)
    everything = maskable_names(model, include_depthwise=True, include_stem=True)
    without = maskable_names(model, include_depthwise=False, include_stem=True)
    assert [name for name in everything if name not in without] == [f"blocks.{n}.0.conv_dw.weight" for n in (3, 4)]


def test_depthwise_means_one_input_channel_a_group_of_several() -> None:
    assert is_depthwise(nn.Conv2d(6, 12, 3, groups=6))
    assert not is_depthwise(nn.Conv2d(6, 6, 3, groups=3))
    assert not is_depthwise(nn.Conv2d(1, 4, 3, groups=1))
    assert not is_depthwise(nn.Linear(3, 3))


def test_a_weight_that_two_layers_share_is_named_once() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4))
    model[2].weight = model[1].weight
    assert maskable_names(model, include_depthwise=True, include_stem=True) == ["0.weight", "1.weight"]


def test_asking_for_a_parameter_twice_names_it_once() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    names = maskable_names(model, include_depthwise=True, include_stem=True, also=("0.*", "*.weight"))
    assert names == ["0.weight", "0.bias", "1.weight"]


def test_a_network_without_such_layers_gives_no_names() -> None:
    model = nn.Sequential(nn.LayerNorm(3), nn.Embedding(4, 3))
    assert maskable_names(model, include_depthwise=True, include_stem=True) == []
