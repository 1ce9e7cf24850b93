"""Folded normalisations: the same features, fewer modules; no copy where the fold would be wrong."""

from functools import partial

import pytest
import timm
import torch
from torch import nn

from smn_cli.backbones.folding import fold, unfolded
from smn_cli.masking.backbone import run_backbone
from smn_cli.seeding import fixed_generator


def with_statistics(model: nn.Module) -> nn.Module:
    """Every normalisation does something, as after a training."""
    for number, module in enumerate(model.modules()):
        if isinstance(module, nn.BatchNorm2d):
            wave = torch.sin(torch.arange(module.num_features) + number)
            module.running_mean, module.running_var = 0.3 * wave, 1.5 + wave
            module.weight.data, module.bias.data = 1 + 0.5 * wave, -0.3 * wave
    return model.eval()


def num_norms(model: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())


@pytest.mark.parametrize("arch", ["test_resnet", "test_efficientnet", "test_byobnet", "mobilenetv3_small_050"])
def test_features_are_the_same_without_normalisations(arch: str) -> None:
    model = with_statistics(timm.create_model(arch, num_classes=0))
    faster = fold(model, 64).network
    assert faster is not model
    assert num_norms(faster) < num_norms(model)
    images = torch.rand(3, 3, 64, 64, generator=fixed_generator())
    with torch.inference_mode():
        torch.testing.assert_close(faster(images), model(images), rtol=1e-4, atol=1e-4)


class NormFirst(nn.Module):
    """A normalisation that is registered after a convolution and called before it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3)
        self.norm = nn.BatchNorm2d(3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps: torch.Tensor = self.conv(torch.relu(self.norm(images)))
        return maps.mean((2, 3))


def test_a_network_that_would_change_is_left_as_it_is() -> None:
    model = with_statistics(NormFirst())
    assert fold(model, 32).network is model


def test_the_model_itself_is_not_touched() -> None:
    model = with_statistics(timm.create_model("test_resnet", num_classes=0))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    fold(model, 64)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_nothing_to_fold() -> None:
    model = timm.create_model("test_vit", num_classes=0).eval()
    assert fold(model, 160).network is model


@pytest.mark.parametrize("arch", ["test_resnet", "test_efficientnet", "test_byobnet", "mobilenetv3_small_050"])
def test_other_weights_of_the_model_can_be_carried_over(arch: str) -> None:
    model = with_statistics(timm.create_model(arch, num_classes=0))
    faster = fold(model, 64)
    generator = fixed_generator()
    weights = {
        name: tensor.detach() * (torch.rand(tensor.shape, generator=generator) < 0.9)
        for name, tensor in model.named_parameters()
        if tensor.ndim > 1
    }
    assert faster.takes(weights)
    images = torch.rand(3, 3, 64, 64, generator=generator)
    with torch.inference_mode():
        found = run_backbone(faster.network, images, faster.carried(weights))
        expected = run_backbone(model, images, weights)
        assert not torch.allclose(expected, model(images), rtol=1e-2, atol=1e-2)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_what_a_fold_swallows_cannot_be_carried_over() -> None:
    model = with_statistics(timm.create_model("test_resnet", num_classes=0))
    faster = fold(model, 64)
    assert not faster.takes(["bn1.weight"])
    assert not faster.takes(["bn1.running_mean"])
    assert unfolded(model).takes(["bn1.weight"])


class Twins(nn.Module):
    """Two convolutions of one weight, each with statistics of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.bn1 = nn.Conv2d(3, 3, 3, padding=1, bias=False), nn.BatchNorm2d(3)
        self.second, self.bn2 = nn.Conv2d(3, 3, 3, padding=1, bias=False), nn.BatchNorm2d(3)
        self.second.weight = self.first.weight

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps: torch.Tensor = self.bn2(self.second(self.bn1(self.first(images)).relu()))
        return maps.mean((2, 3))


def test_a_weight_of_two_places_is_folded_into_two_and_so_cannot_be_carried_over() -> None:
    model = with_statistics(Twins())
    faster = fold(model, 32)
    assert num_norms(faster.network) == 0
    assert not faster.takes(["first.weight"])


def test_normalisations_without_weights_of_their_own_are_folded_too() -> None:
    model = timm.create_model("test_resnet", num_classes=0, norm_layer=partial(nn.BatchNorm2d, affine=False)).eval()
    faster = fold(model, 64)
    assert num_norms(faster.network) == 0
    weights = {"layer4.0.conv1.weight": model.get_parameter("layer4.0.conv1.weight").detach() / 2}
    images = torch.rand(3, 3, 64, 64, generator=fixed_generator())
    with torch.inference_mode():
        found = run_backbone(faster.network, images, faster.carried(weights))
        torch.testing.assert_close(found, run_backbone(model, images, weights), rtol=1e-4, atol=1e-4)


def test_features_that_are_no_numbers_are_no_proof() -> None:
    model = with_statistics(timm.create_model("test_resnet", num_classes=0))
    model.get_buffer("layer4.0.bn1.running_var")[0] = torch.nan
    assert fold(model, 64).network is model
