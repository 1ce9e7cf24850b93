"""A backbone has exactly the weights it was given, or is refused with the names of what does not fit."""

from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from smn_cli.backbones.loading import check_sizes, load_backbone, load_with_timm, wrap_backbone
from smn_cli.errors import BackboneError
from smn_cli.masking.ties import tied_names
from tests.conftest import CONVNET, RESNET, VIT, random_weights

WeightsFile = Callable[[str], Path]


def saved(path: Path, tensors: dict[str, Tensor]) -> Path:
    """A safetensors file."""
    save_file(tensors, path)
    return path


@pytest.mark.parametrize("arch", [CONVNET, RESNET, VIT])
def test_a_backbone_has_the_weights_of_its_file_frozen_in_eval_mode(arch: str, weights_file: WeightsFile) -> None:
    backbone = load_backbone(arch, weights_file(arch))
    stored, own = load_file(weights_file(arch)), backbone.model.state_dict()
    assert all(torch.equal(own[name], stored[name]) for name in own)
    assert stored.keys() - own.keys() == backbone.classifier.keys()
    assert all(torch.equal(tensor, stored[name]) for name, tensor in backbone.classifier.items())
    assert not backbone.model.training
    assert not any(parameter.requires_grad for parameter in backbone.model.parameters())


@pytest.mark.parametrize("arch", [CONVNET, RESNET, VIT])
def test_features_are_those_of_plain_timm_with_the_width_it_says(arch: str, weights_file: WeightsFile) -> None:
    backbone = load_backbone(arch, weights_file(arch))
    plain = load_with_timm(arch, weights_file(arch), 1000)
    config = timm.create_model(arch, pretrained=False).pretrained_cfg
    images = torch.rand(2, *config["input_size"])
    with torch.inference_mode():
        features = backbone.model(images)
        assert torch.equal(features, plain(images))
    assert features.shape == (2, backbone.num_features)
    assert (backbone.mean, backbone.std) == (tuple(config["mean"]), tuple(config["std"]))
    assert backbone.interpolation == config["interpolation"]


def test_networks_that_widen_after_pooling_say_their_true_width() -> None:
    backbone = wrap_backbone(timm.create_model("mobilenetv3_small_050", pretrained=False))
    with torch.inference_mode():
        assert backbone.model(torch.rand(1, 3, 32, 32)).shape == (1, backbone.num_features)


def test_a_vit_takes_images_of_several_sizes(weights_file: WeightsFile) -> None:
    check_sizes(load_backbone(VIT, weights_file(VIT)), [32, 48, 160])


def test_a_size_that_the_network_cannot_take_is_refused(weights_file: WeightsFile) -> None:
    with pytest.raises(BackboneError, match=r"test_vit cannot take images of 33 px \(.*\): set `size`"):
        check_sizes(load_backbone(VIT, weights_file(VIT)), [32, 33])


def test_a_size_that_a_network_refuses_without_a_word_is_one_clear_error(weights_file: WeightsFile) -> None:
    backbone = load_backbone(RESNET, weights_file(RESNET))

    def refuse(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        raise AssertionError  # as HaloNet does

    backbone.model.register_forward_pre_hook(refuse)
    with pytest.raises(BackboneError, match=r"cannot take images of 32 px \(AssertionError\): set `size`"):
        check_sizes(backbone, [32])


def test_weights_of_another_architecture_are_refused_with_the_first_tensors(weights_file: WeightsFile) -> None:
    with pytest.raises(
        BackboneError, match=r"does not fit test_resnet: it lacks conv1\.0\.weight, \S+, \S+ and \d+ more"
    ):
        load_backbone(RESNET, weights_file(VIT))


def test_tensors_of_another_shape_are_named_with_both_shapes(tmp_path: Path) -> None:
    weights = random_weights(RESNET)
    weights["conv1.0.weight"] = torch.zeros(8, 3, 3, 3)
    with pytest.raises(
        BackboneError, match=r"it has conv1\.0\.weight \(8, 3, 3, 3\) instead of \(16, 3, 3, 3\); is it"
    ):
        load_backbone(RESNET, saved(tmp_path / "w.safetensors", weights))


def test_a_single_missing_tensor_is_named(tmp_path: Path) -> None:
    weights = random_weights(RESNET)
    del weights["layer2.0.bn1.running_var"]
    with pytest.raises(BackboneError, match=r"it lacks layer2\.0\.bn1\.running_var; is it of another"):
        load_backbone(RESNET, saved(tmp_path / "w.safetensors", weights))


def test_counters_of_batches_may_be_missing(tmp_path: Path, weights_file: WeightsFile) -> None:
    weights = {name: t for name, t in random_weights(RESNET).items() if not name.endswith("num_batches_tracked")}
    backbone = load_backbone(RESNET, saved(tmp_path / "w.safetensors", weights))
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(backbone.model(images), load_backbone(RESNET, weights_file(RESNET)).model(images))


def test_a_classifier_of_another_size_is_kept_as_it_is(tmp_path: Path) -> None:
    weights = random_weights(RESNET)
    weights["fc.weight"], weights["fc.bias"] = torch.rand(7, weights["fc.weight"].shape[1]), torch.rand(7)
    backbone = load_backbone(RESNET, saved(tmp_path / "w.safetensors", weights))
    assert backbone.classifier.keys() == {"fc.weight", "fc.bias"}
    assert all(torch.equal(tensor, weights[name]) for name, tensor in backbone.classifier.items())


def test_a_file_without_classifier_gives_a_backbone_without(tmp_path: Path) -> None:
    weights = {name: tensor for name, tensor in random_weights(RESNET).items() if not name.startswith("fc.")}
    assert load_backbone(RESNET, saved(tmp_path / "w.safetensors", weights)).classifier == {}


def test_surplus_tensors_are_left_out_and_it_is_said(tmp_path: Path) -> None:
    weights = {**random_weights(RESNET), "projector.weight": torch.zeros(2, 2)}
    backbone = load_backbone(RESNET, saved(tmp_path / "w.safetensors", weights))
    assert backbone.notes == ("left out 1 tensors that test_resnet does not have: projector.weight",)


def test_a_half_precision_file_becomes_float32_of_the_same_values(tmp_path: Path) -> None:
    weights = {name: t.half() if t.is_floating_point() else t for name, t in random_weights(RESNET).items()}
    backbone = load_backbone(RESNET, saved(tmp_path / "w.safetensors", weights))
    own = {**backbone.model.state_dict(), **backbone.classifier}
    assert all(torch.equal(tensor, weights[name].to(tensor.dtype)) for name, tensor in own.items())
    assert {tensor.dtype for name, tensor in own.items() if "num_batches" not in name} == {torch.float32}


@pytest.mark.parametrize(
    ("arch", "hint"),
    [
        ("resnet5O", "resnet50"),
        ("my_efficientnet_lite0", "efficientnet_lite0"),
        ("vit_bse_patch16_224", "vit_base_patch16"),
    ],
)
def test_an_unknown_name_suggests_near_ones(arch: str, hint: str) -> None:
    with pytest.raises(BackboneError, match=rf"`arch` {arch} is not a timm model: did you mean .*{hint}"):
        load_backbone(arch)


def test_a_name_near_none_says_where_the_names_are() -> None:
    with pytest.raises(BackboneError, match=r"`arch` zzzqqq is not a timm model: see timm\.list_models"):
        load_backbone("zzzqqq")


def test_an_unreachable_hub_is_one_clear_error() -> None:
    with pytest.raises(BackboneError) as error_info:
        load_backbone("test_resnet.r160_in1k")
    message = str(error_info.value)
    assert message.startswith("the pretrained weights of `arch` test_resnet.r160_in1k cannot be had (")
    assert "): give a local file with `weights`; " in message
    assert "\n" not in message


def test_an_unknown_tag_is_refused_by_name() -> None:
    with pytest.raises(BackboneError, match=r"`arch` resnet50\.nonsense cannot be had \(Invalid pretrained tag"):
        load_backbone("resnet50.nonsense")


def test_a_model_that_is_not_of_timm_is_refused() -> None:
    with pytest.raises(BackboneError, match="Linear is not a timm model: build it with timm"):
        wrap_backbone(torch.nn.Linear(2, 2))


@pytest.mark.parametrize("arch", [CONVNET, RESNET, VIT, "efficientvit_m0"])
def test_a_network_that_is_not_run_has_the_same_state(arch: str, weights_file: WeightsFile, tmp_path: Path) -> None:
    tensors = load_file(weights_file(arch))
    lacking = {name: tensor for name, tensor in tensors.items() if not name.endswith("num_batches_tracked")}
    half = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    for number, content in enumerate((tensors, lacking, half)):
        path = saved(tmp_path / f"{number}.safetensors", content)
        run, still = load_backbone(arch, path), load_backbone(arch, path, is_run=False)
        own, same = run.model.state_dict(), still.model.state_dict()
        assert list(same) == list(own)
        assert all(torch.equal(same[name], tensor) and same[name].dtype == tensor.dtype for name, tensor in own.items())
        assert still.classifier.keys() == run.classifier.keys()
        assert all(torch.equal(still.classifier[name], tensor) for name, tensor in run.classifier.items())
        for name in ("arch", "tag", "num_features", "takes_any_size", "notes", "classifier_name"):
            assert getattr(still, name) == getattr(run, name)


def test_tied_tensors_stay_tied_in_a_network_that_is_not_run(tmp_path: Path) -> None:
    path = saved(tmp_path / "w.safetensors", {name: each.clone() for name, each in random_weights("coat_tiny").items()})
    model = load_backbone("coat_tiny", path, is_run=False).model
    assert tied_names(model) == tied_names(timm.create_model("coat_tiny", pretrained=False, num_classes=0)) != {}
    assert not any(tensor.is_meta for tensor in model.state_dict().values())


def test_a_network_that_is_not_run_is_refused_like_any_other(weights_file: WeightsFile) -> None:
    messages = []
    for is_run in (True, False):
        with pytest.raises(BackboneError) as refusal:
            load_backbone(VIT, weights_file(RESNET), is_run=is_run)
        messages.append(str(refusal.value))
    assert messages[0] == messages[1]
