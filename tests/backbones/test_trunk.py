"""A cut network is the network: the same features and gradients from both parts, whatever its family."""

from collections.abc import Iterator

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from smn_cli.backbones.structure import block_names
from smn_cli.backbones.trunk import CutNetwork, cut_before_trained
from smn_cli.errors import BackboneError
from smn_cli.masking.backbone import normalisation_layers, run_backbone
from smn_cli.masking.frozen_norm import cheap_frozen_norm
from tests.conftest import CONVNET, RESNET, VIT
from tests.masking.test_backbone import build

SIZE = 64
FAMILIES = [CONVNET, RESNET, "test_convnext", "test_byobnet", "test_vit2"]


def network(arch: str) -> nn.Module:
    """Of any size, channels last, as a run has it."""
    model = timm.create_model(arch, num_classes=0, **({"dynamic_img_size": True} if "vit" in arch else {}))
    return model.eval().requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[no-any-return]


def late_names(model: nn.Module) -> list[str]:
    """Weights of the last two blocks and of what follows."""
    before = tuple(f"{name}." for name in block_names(model)[:-2])
    names = [name for name, parameter in model.named_parameters() if parameter.ndim > 1]
    first = next(at for at, name in enumerate(names) if name.startswith(f"{block_names(model)[-2]}."))
    return [name for name in names[first:] if not name.startswith(before)]


def images(num: int = 3, size: int = SIZE) -> Tensor:
    return torch.randn(num, 3, size, size).contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("arch", FAMILIES)
def test_both_parts_together_are_the_network_in_features_and_gradients(arch: str) -> None:
    model = network(arch)
    names = late_names(model)
    cut = cut_before_trained(model, names, SIZE)
    assert cut.block == block_names(model)[-2]
    seen = images()
    activations = cut.trunk(seen)
    assert activations[0].numel() == cut.num_activations
    weights = {name: (model.get_parameter(name) * 0.9).requires_grad_() for name in names}
    late, whole = cut.late(activations, weights), run_backbone(model, seen, weights)
    assert torch.equal(late, whole)
    assert not torch.equal(late, run_backbone(model, images(), weights))
    found, expected = (torch.autograd.grad((f**2).sum(), list(weights.values())) for f in (late, whole))
    assert all(map(torch.equal, found, expected))
    assert any(bool(gradient.any()) for gradient in found)


@pytest.mark.parametrize("arch", FAMILIES)
def test_neither_part_computes_what_is_the_others(arch: str) -> None:
    model = network(arch)
    cut = cut_before_trained(model, late_names(model), SIZE)
    seen = images(1)
    work = []
    for run in (lambda: model(seen), lambda: cut.trunk(seen), lambda: cut.late(cut.trunk(seen), {})):
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            run()
        work.append(counter.get_total_flops())
    whole, trunk, trunk_and_late = work
    assert trunk == pytest.approx(cut.share * whole)
    assert 0 < trunk < whole
    assert trunk_and_late == whole


@pytest.mark.parametrize("arch", FAMILIES)
def test_a_network_is_afterwards_what_it_was(arch: str) -> None:
    model = network(arch)
    before = [dict(module.__dict__) for module in model.modules()]
    cut = cut_before_trained(model, late_names(model), SIZE)
    cut.late(cut.trunk(images()), {})
    with pytest.raises(RuntimeError):
        cut.late(torch.zeros(1, 7, 3, 3), {})
    assert [dict(module.__dict__) for module in model.modules()] == before
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())


def test_cheap_normalisation_stands_around_a_late_part_and_comes_back() -> None:
    model = network(RESNET)
    names = late_names(model)
    cut = cut_before_trained(model, names, SIZE)
    weights = {name: model.get_parameter(name).detach().requires_grad_() for name in names}
    activations = cut.trunk(images())
    plain = cut.late(activations, weights)
    with cheap_frozen_norm(normalisation_layers(model).values()):
        cheap = cut.late(activations, weights)
        nodes = {type(node).__name__ for node in graph_of(cheap)}
    assert torch.equal(cheap, plain)
    assert "_FrozenBatchNormBackward" in nodes
    assert "_FrozenBatchNormBackward" not in {type(node).__name__ for node in graph_of(plain)}
    assert not any("forward" in module.__dict__ for module in model.modules())


def graph_of(tensor: Tensor) -> Iterator[object]:
    waiting = [tensor.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is not None:
            yield node
            waiting += [before for before, _ in node.next_functions]


class Around(nn.Module):
    """Two blocks; what comes out of them is added to what `around` makes of the stem's output."""

    def __init__(self, around: str = "") -> None:
        super().__init__()
        self.feature_info = [{"module": "blocks.0", "num_chs": 4}]
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.act = nn.ReLU()  # called before the cut and after it
        self.blocks = nn.ModuleList(nn.Conv2d(4, 4, 3, padding=1) for _ in range(2))
        self.neck = nn.Conv2d(4, 4, 1)
        self.around = around

    def forward(self, images: Tensor) -> Tensor:
        stem: Tensor = self.act(self.stem(images))
        between = self.blocks[0](stem)
        if self.around == "twice":
            between = self.blocks[0](between)
        late = self.act(self.blocks[1](self.neck(between)))
        if self.around == "sum":
            late = late + stem
        if self.around == "joined":
            late = torch.cat([late, stem], dim=1)
        features: Tensor = late.mean(dim=(2, 3))
        return features


@pytest.mark.parametrize(
    ("around", "words"),
    [
        ("sum", "Around cannot be cut before blocks.1: more of an image goes around it"),
        ("joined", r"Around cannot be cut before blocks.1 \(Sizes of tensors must match"),
        ("twice", "Around does not call blocks.0 once as a whole"),
    ],
)
def test_a_network_in_which_more_goes_around_the_cut_is_refused(around: str, words: str) -> None:
    model = Around(around).eval().requires_grad_(False)
    with pytest.raises(BackboneError, match=words):
        cut_before_trained(model, ["blocks.1.weight"], SIZE)
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())


def test_weights_that_are_trained_between_blocks_leave_no_trunk() -> None:
    with pytest.raises(BackboneError, match=r"no block before blocks\.1 is left whole"):
        cut_before_trained(Around().eval().requires_grad_(False), ["neck.weight"], SIZE)


def test_a_module_that_is_called_on_both_sides_works_on_both() -> None:
    model = Around().eval().requires_grad_(False)
    cut: CutNetwork = cut_before_trained(model, ["blocks.1.weight"], SIZE)
    seen = images()
    assert torch.equal(cut.late(cut.trunk(seen), {}), model(seen))


@pytest.mark.parametrize(
    ("arch", "names", "words"),
    [
        (RESNET, ["conv1.0.weight", "layer4.0.conv1.weight"], "no block before layer1 is left whole"),
        (RESNET, ["layer1.0.conv1.weight"], "no block before layer1 is left whole"),
        (VIT, ["pos_embed", "blocks.1.mlp.fc1.weight"], "no block before blocks.0 is left whole"),
        (RESNET, [], "no block is trained"),
    ],
)
def test_a_trunk_that_trains_or_is_not_there_is_refused(arch: str, names: list[str], words: str) -> None:
    model = build(arch).requires_grad_(False)
    stem = next(name for name, _ in model.named_parameters())
    with pytest.raises(BackboneError, match=words):
        cut_before_trained(model, [stem if name == "conv1.0.weight" else name for name in names], 160)


def test_a_network_without_blocks_is_refused() -> None:
    with pytest.raises(BackboneError, match="Sequential names no blocks to cut between"):
        cut_before_trained(nn.Sequential(nn.Conv2d(3, 2, 3)), ["0.weight"], SIZE)
