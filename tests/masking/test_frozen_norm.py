"""Frozen normalisation costs less in training, and computes the same."""

import pytest
import timm
import torch
from torch import Tensor, nn

from smn_cli.masking.backbone import normalisation_layers
from smn_cli.masking.frozen_norm import cheap_frozen_norm


def gradients(model: nn.Module, images: Tensor, *, cheap: bool) -> tuple[Tensor, list[Tensor], int]:
    """Output, gradients of all that learns, and the bytes kept for the backward pass."""
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    model.zero_grad()
    layers = normalisation_layers(model).values() if cheap else ()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), cheap_frozen_norm(layers):
        output = model(images)
    output.square().sum().backward()
    found = [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]
    return output.detach(), found, sum(kept.values())


def network(arch: str) -> nn.Module:
    """A network with frozen normalisation of uneven statistics, in eval mode."""
    torch.manual_seed(0)
    model: nn.Module = timm.create_model(arch, num_classes=0).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.requires_grad_(False)
            for tensor in (module.running_mean, module.weight, module.bias):
                assert isinstance(tensor, Tensor)
                tensor.data += 0.3 * torch.randn_like(tensor)
            assert isinstance(module.running_var, Tensor)
            module.running_var.exponential_()
    return model


@pytest.mark.parametrize("arch", ["test_resnet", "test_efficientnet"])
def test_output_is_equal_bit_for_bit_gradients_but_for_rounding_and_less_is_kept(arch: str) -> None:
    model = network(arch)
    images = torch.randn(4, 3, 64, 64).contiguous(memory_format=torch.channels_last)
    plain, expected, kept_plain = gradients(model, images, cheap=False)
    cheap, found, kept_cheap = gradients(model, images, cheap=True)
    assert torch.equal(plain, cheap)
    assert len(expected) == len(found) > 5
    for one, other in zip(expected, found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=float(one.abs().max()) * 1e-4)
    assert kept_cheap < 0.8 * kept_plain


def test_normalisation_that_learns_or_adapts_is_left_alone() -> None:
    images = torch.randn(8, 3, 5, 5)
    learning, adapting = nn.BatchNorm2d(3).eval(), nn.BatchNorm2d(3).requires_grad_(False)
    with cheap_frozen_norm([learning, adapting]):
        learning(images).square().sum().backward()
        adapting(images)
    assert learning.weight.grad is not None
    assert adapting.running_mean is not None
    assert bool(adapting.running_mean.any())


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("shape", [(6, 4), (6, 4, 5), (2, 4, 3, 3)])
def test_every_kind_of_input_has_its_gradient(shape: tuple[int, ...], affine: bool) -> None:
    kind = nn.BatchNorm2d if len(shape) == 4 else nn.BatchNorm1d
    layer = kind(4, affine=affine, dtype=torch.float64).eval().requires_grad_(False)
    assert isinstance(layer.running_var, Tensor)
    layer.running_var.uniform_(0.5, 2)
    images = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    with cheap_frozen_norm([layer]):
        assert torch.autograd.gradcheck(layer, (images,))


def test_half_precision_keeps_its_type() -> None:
    layer = nn.BatchNorm2d(4).eval().requires_grad_(False)
    images = torch.randn(2, 4, 3, 3, dtype=torch.bfloat16, requires_grad=True)
    with cheap_frozen_norm([layer]):
        output = layer(images)
    output.sum().backward()
    assert output.dtype == torch.bfloat16
    assert isinstance(images.grad, Tensor)
    assert images.grad.dtype == torch.bfloat16


def test_layers_are_as_before_when_it_is_over_and_when_it_failed() -> None:
    layer = nn.BatchNorm2d(4).eval()
    with pytest.raises(ValueError, match="expected 4D"), cheap_frozen_norm([layer, layer]):
        layer(torch.zeros(3))
    assert "forward" not in vars(layer)
