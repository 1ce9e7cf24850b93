"""EfficientNet-Lite0 of another code base lands on timm's layers: by name, and by what it sees."""

from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from smn_cli.backbones.layouts import rename_to_timm
from smn_cli.backbones.loading import load_backbone
from smn_cli.backbones.packaged import LITE0_ARCH, lite0_weights
from smn_cli.backbones.weight_files import read_weight_file
from smn_cli.data.preprocessing import Preprocessing
from smn_cli.errors import BackboneError


@pytest.fixture(scope="module")
def lite0_file() -> Path:
    """The real weights, if the demo extra is installed."""
    try:
        return lite0_weights()
    except BackboneError as error:
        pytest.skip(str(error))


PAIRS = {
    "_conv_stem.weight": "conv_stem.weight",
    "_bn0.running_var": "bn1.running_var",
    "_blocks.0._depthwise_conv.weight": "blocks.0.0.conv_dw.weight",
    "_blocks.0._bn1.bias": "blocks.0.0.bn1.bias",
    "_blocks.0._project_conv.weight": "blocks.0.0.conv_pw.weight",
    "_blocks.1._expand_conv.weight": "blocks.1.0.conv_pw.weight",
    "_blocks.1._bn0.running_mean": "blocks.1.0.bn1.running_mean",
    "_blocks.1._depthwise_conv.weight": "blocks.1.0.conv_dw.weight",
    "_blocks.1._bn1.running_mean": "blocks.1.0.bn2.running_mean",
    "_blocks.1._project_conv.weight": "blocks.1.0.conv_pwl.weight",
    "_blocks.1._bn2.weight": "blocks.1.0.bn3.weight",
    "_blocks.15._project_conv.weight": "blocks.6.0.conv_pwl.weight",
    "_conv_head.weight": "conv_head.weight",
    "_bn1.running_mean": "bn2.running_mean",
    "_fc.bias": "classifier.bias",
}
"""Names of the same tensor in efficientnet-pytorch and in timm, put together from the two definitions."""


@pytest.mark.real
def test_every_kind_of_tensor_gets_its_name(lite0_file: Path) -> None:
    tensors = read_weight_file(lite0_file).tensors
    names = list(timm.create_model(LITE0_ARCH, pretrained=False).state_dict())
    renamed = rename_to_timm(tensors, names[:-2], names[-2:])
    assert renamed.layout is not None
    assert renamed.layout.name == "efficientnet-pytorch"
    assert renamed.tensors.keys() == set(names)
    for theirs, timms in PAIRS.items():
        assert renamed.tensors[timms] is tensors[theirs], theirs


@pytest.mark.real
def test_the_real_network_knows_a_palace_and_a_flower(lite0_file: Path) -> None:
    from PIL import Image
    from sklearn.datasets import load_sample_images

    backbone = load_backbone(LITE0_ARCH, lite0_file)
    assert "renamed from the layout of efficientnet-pytorch" in backbone.notes
    prepare = Preprocessing(224, backbone.mean, backbone.std, backbone.interpolation)
    images = torch.stack([prepare(Image.fromarray(pixels)) for pixels in load_sample_images().images])
    with torch.inference_mode():
        logits = backbone.model(images) @ backbone.classifier["classifier.weight"].T
    palace, flower = (logits + backbone.classifier["classifier.bias"]).topk(5).indices.tolist()
    # ImageNet's classes: 698 palace, 832 stupa, 663 monastery; 985 daisy, 308 fly, 309 bee, 738 pot
    assert {698, 832, 663} & set(palace)
    assert {985, 308, 309, 738} & set(flower)


def test_a_file_of_that_layout_with_too_few_tensors_is_refused(
    tmp_path: Path, weights_file: Callable[[str], Path]
) -> None:
    tensors = {"_conv_stem.weight": torch.zeros(1), "_blocks.0._depthwise_conv.weight": torch.zeros(1)}
    save_file(tensors, tmp_path / "w.safetensors")
    with pytest.raises(BackboneError, match="does not fit test_resnet: it lacks conv1"):
        load_backbone("test_resnet", tmp_path / "w.safetensors")


def test_other_layouts_are_left_as_they_are() -> None:
    tensors = {"conv.weight": torch.zeros(1), "fc.bias": torch.zeros(2)}
    renamed = rename_to_timm(tensors, ["a"], ["b"])
    assert (renamed.tensors, renamed.layout, renamed.left_out, renamed.preparation) == (tensors, None, (), None)
