"""Plain ResNets are known by names and shapes alone, and nothing else is taken for one."""

import pytest

from smn_cli.backbones.loading import wrap_backbone
from smn_cli.backbones.resnets import CLASSIFIER, RESNETS, is_whole_resnet
from smn_cli.masking.ties import tied_names
from tests.conftest import meta_model

PLAIN = (*RESNETS.values(), "wide_resnet50_2", "wide_resnet101_2")
OTHERS = ("resnet26", "resnet50d", "resnext50_32x4d", "seresnet50", "resnet50_gn", "ecaresnet26t", "resnetv2_50")


def shapes_of(arch: str) -> dict[str, tuple[int, ...]]:
    """Of what a base records."""
    state = meta_model(arch).state_dict()
    return {name: tuple(tensor.shape) for name, tensor in state.items() if not name.endswith("num_batches_tracked")}


@pytest.mark.parametrize("arch", PLAIN)
def test_a_plain_resnet_is_what_timm_builds(arch: str) -> None:
    shapes = shapes_of(arch)
    assert is_whole_resnet(arch, shapes)
    assert not any(is_whole_resnet(other, shapes) for other in PLAIN if other != arch)


@pytest.mark.parametrize("arch", RESNETS.values())
def test_the_rest_of_timms_resnet_is_a_classifier_and_a_counter_for_each_norm(arch: str) -> None:
    import timm
    import torch

    with torch.device("meta"):
        backbone = wrap_backbone(timm.create_model(arch), owned=True)
    assert list(backbone.classifier) == [f"{CLASSIFIER}.weight", f"{CLASSIFIER}.bias"]
    state = backbone.model.state_dict()
    counters = {name.removesuffix("num_batches_tracked") for name in state if name.endswith("num_batches_tracked")}
    assert counters == {name.removesuffix("running_mean") for name in state if name.endswith("running_mean")}
    assert (backbone.takes_any_size, tied_names(backbone.model)) == (False, {})


@pytest.mark.parametrize("arch", OTHERS)
def test_other_networks_are_not_taken_for_one(arch: str) -> None:
    shapes = shapes_of(arch)
    assert not any(is_whole_resnet(name, shapes) for name in (arch, *PLAIN))


def test_a_tensor_more_or_less_is_another_network() -> None:
    shapes = shapes_of("resnet18")
    assert not is_whole_resnet("resnet18", shapes | {"layer1.0.se.weight": (3,)})
    assert not is_whole_resnet("resnet18", {name: shape for name, shape in shapes.items() if name != "bn1.bias"})
    assert not is_whole_resnet("resnet18", {name: s for name, s in shapes.items() if name != "layer1.0.conv1.weight"})
    assert not is_whole_resnet("resnet18", {})
