"""No adapter is handed out that rebuilds another network than the one that was trained."""

from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor

from smn_cli.adapters.adapter import Adapter, make_adapter
from smn_cli.backbones.loading import Backbone, wrap_backbone
from smn_cli.errors import MismatchError
from smn_cli.runs.pack import pack_run
from smn_cli.runs.read_back import read_back
from tests.conftest import CONVNET, RESNET, VIT
from tests.small_runs import Workshop, digests

pytestmark = pytest.mark.slow


def masks_over(backbone: Backbone, names: list[str], seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.rand(backbone.model.get_parameter(name).shape, generator=generator) > 0.2 for name in names}


def adapter_of(backbone: Backbone, masks: dict[str, Tensor]) -> Adapter:
    return make_adapter(backbone.model.state_dict(), masks, arch=backbone.arch)


def weights_of(backbone: Backbone) -> list[str]:
    return [name for name, parameter in backbone.model.named_parameters() if parameter.dim() > 1]


@pytest.mark.parametrize("arch", [CONVNET, RESNET, VIT])
def test_what_is_handed_out_has_the_same_bytes_and_nothing_else_changes(arch: str) -> None:
    backbone = wrap_backbone(timm.create_model(arch))
    masks = masks_over(backbone, weights_of(backbone))
    adapter = adapter_of(backbone, masks)
    before, state = digests(backbone.model), torch.random.get_rng_state()
    again = read_back(adapter, backbone, masks, {}, size=32 if arch != VIT else backbone.native_size)
    assert again.to_bytes() == adapter.to_bytes()
    assert digests(backbone.model) == before
    assert not any(module.training for module in backbone.model.modules())
    assert torch.equal(torch.random.get_rng_state(), state)


def test_an_adapter_of_other_masks_is_not_handed_out() -> None:
    backbone = wrap_backbone(timm.create_model(RESNET))
    names = weights_of(backbone)
    masks = masks_over(backbone, names)
    other = adapter_of(backbone, masks | masks_over(backbone, names[-1:], seed=1))
    with pytest.raises(MismatchError, match=f"up to .* apart.*{RESNET} holds or keeps weights") as caught:
        read_back(other, backbone, masks, {}, size=32)
    assert "\n" not in str(caught.value)
    moved = {name: mean + 1 for name, mean in backbone.model.state_dict().items() if name.endswith("running_mean")}
    with pytest.raises(MismatchError):  # nor one without the run's statistics
        read_back(adapter_of(backbone, masks), backbone, masks, moved, size=32)


def test_features_that_are_no_numbers_are_no_difference() -> None:
    backbone = wrap_backbone(timm.create_model(RESNET))
    with torch.no_grad():
        next(backbone.model.parameters()).fill_(torch.finfo(torch.float32).max)
    masks = masks_over(backbone, weights_of(backbone)[1:])
    assert not backbone.model(torch.rand(2, 3, 32, 32)).isfinite().all()
    read_back(adapter_of(backbone, masks), backbone, masks, {}, size=32)


def test_a_run_packs_only_what_it_trained(
    weights_file: Callable[[str], Path], image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Workshop(weights_file(RESNET), RESNET, image_folder, tmp_path)
    session = place.finish("run", steps=2, lr_scores=500.0)
    backbone = place.backbone()
    # a network that computes by what it does not hold in its state dict
    model = backbone.model
    gates = iter([1.0, 1.5])
    model.register_forward_hook(lambda module, inputs, features: features * next(gates))
    with pytest.raises(MismatchError, match="does not compute the features of the run's network"):
        pack_run(session.folder, backbone)
