"""The line that `smn apply` prints loads the network that it wrote."""

from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from smn_cli.adapters.adapter import make_adapter
from smn_cli.backbones.loading import load_backbone
from smn_cli.errors import UsageError
from smn_cli.file_rebuild import RebuiltNetwork
from smn_cli.rebuild import check_checkpoint, rebuild, rebuild_with_readout, save_checkpoint
from tests.conftest import RESNET
from tests.golden.make_golden import readout

ODD_CLASSIFIER = "efficientvit_m0"


@pytest.mark.parametrize("arch", [RESNET, ODD_CLASSIFIER])
def test_the_number_of_classes_is_that_of_the_logits(
    arch: str, weights_file: Callable[[str], Path], tmp_path: Path
) -> None:
    backbone = load_backbone(arch, weights_file(arch))
    first = next(name for name, parameter in backbone.model.named_parameters() if parameter.dim() > 1)
    mask = torch.rand(backbone.model.get_parameter(first).shape) > 0.2
    adapter = make_adapter(backbone.model.state_dict(), {first: mask}, arch=arch)
    network, path = rebuild(adapter, backbone), tmp_path / "c.safetensors"
    save_checkpoint(network, path)
    check_checkpoint(adapter, path)
    assert network.num_classes == 1000
    # of EfficientViT-M the first tensor is a normalisation layer's, as long as the features are wide
    assert (len(next(iter(backbone.classifier.values()))) == 1000) == (arch == RESNET)
    loaded = timm.create_model(arch, num_classes=network.num_classes, checkpoint_path=str(path))
    assert torch.equal(loaded.state_dict()[first], network.state[first])


def test_a_classifier_that_is_not_one_linear_layer_has_no_place_for_a_readout(
    weights_file: Callable[[str], Path],
) -> None:
    backbone = load_backbone(ODD_CLASSIFIER, weights_file(ODD_CLASSIFIER))
    first = next(name for name, parameter in backbone.model.named_parameters() if parameter.dim() > 1)
    mask = torch.ones(backbone.model.get_parameter(first).shape, dtype=torch.bool)
    adapter = make_adapter(backbone.model.state_dict(), {first: mask}, arch=ODD_CLASSIFIER)
    with pytest.raises(UsageError, match=f"the classifier of {ODD_CLASSIFIER} is not one linear layer"):
        rebuild_with_readout(adapter.with_readout(readout("centred")), backbone)


def test_tensors_that_share_memory_are_written_each_for_itself(tmp_path: Path) -> None:
    whole = torch.arange(12.0).view(3, 4)
    state = {"tied": whole, "again": whole, "row": whole[1], "turned": whole.T, "none": whole[:0], "void": whole[:0]}
    save_checkpoint(RebuiltNetwork(state, 0, False), tmp_path / "c.safetensors")
    found = load_file(tmp_path / "c.safetensors")
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in state.items())


def test_a_full_disk_is_told_as_what_the_system_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("smn_cli.rebuild.save_file", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*c\.safetensors'"):
        save_checkpoint(RebuiltNetwork({}, 0, False), tmp_path / "c.safetensors")
    assert list(tmp_path.iterdir()) == []
