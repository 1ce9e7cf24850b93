"""Weights that compute nothing, and classifiers that are none: told on loading, by name."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from smn_cli.backbones import weight_files
from smn_cli.backbones.loading import load_backbone
from smn_cli.errors import BackboneError, DataError, FileError
from tests.conftest import CONVNET, RESNET

Weights = Callable[[str], Path]


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("conv_stem.weight", float("nan"), "conv_stem.weight holds numbers that are infinite or none"),
        ("blocks.0.0.bn1.bias", float("inf"), "blocks.0.0.bn1.bias holds numbers that are infinite or none"),
        ("bn1.running_var", -1.0, "bn1.running_var holds a negative variance"),
    ],
)
def test_weights_that_compute_nothing(
    weights_file: Weights, tmp_path: Path, name: str, value: float, words: str
) -> None:
    state = load_file(weights_file(CONVNET))
    state[name].reshape(-1)[0] = value
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(BackboneError, match=words) as caught:
        load_backbone(CONVNET, tmp_path / "w.safetensors")
    assert caught.value.exit_code == 5


@pytest.mark.parametrize(
    "broken", [{"fc.bias": torch.tensor(1.0)}, {"fc.bias": torch.ones(3)}, {"fc.weight": torch.ones(10, 3)}]
)
def test_tensors_that_make_no_classifier_are_left_out_aloud(
    weights_file: Weights, tmp_path: Path, broken: dict[str, torch.Tensor]
) -> None:
    state = load_file(weights_file(RESNET))
    assert load_backbone(RESNET, weights_file(RESNET)).classifier.keys() == {"fc.weight", "fc.bias"}
    save_file({**state, **broken}, tmp_path / "w.safetensors")
    backbone = load_backbone(RESNET, tmp_path / "w.safetensors")
    assert backbone.classifier == {}
    assert any("left out the file's classifier" in note for note in backbone.notes)


def test_a_classifier_of_other_classes_is_one(weights_file: Weights, tmp_path: Path) -> None:
    state = load_file(weights_file(RESNET))
    width = state["fc.weight"].shape[1]
    save_file({**state, "fc.weight": torch.ones(7, width), "fc.bias": torch.ones(7)}, tmp_path / "w.safetensors")
    assert len(load_backbone(RESNET, tmp_path / "w.safetensors").classifier["fc.bias"]) == 7


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_file_of_very_many_tensors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    monkeypatch.setattr(weight_files, "MAX_TENSORS", 10)
    tensors = {f"t{number}": torch.zeros(1) for number in range(11)}
    path = tmp_path / f"w{suffix}"
    save_file(tensors, path) if suffix == ".safetensors" else torch.save(tensors, path)
    with pytest.raises(FileError, match="holds 11 tensors: expected at most 10"):
        load_backbone(RESNET, path)


def test_what_is_no_file_of_weights_is_called_what_it_is(tmp_path: Path) -> None:
    golden = Path(__file__).parents[1] / "golden"
    with pytest.raises(FileError, match=r"v1_bits\.safetensors is an adapter, which goes where FILE or --adapter"):
        load_backbone(RESNET, golden / "v1_bits.safetensors")
    with pytest.raises(DataError, match="is a folder: expected a file"):
        load_backbone(RESNET, tmp_path)
    (tmp_path / "config.json").write_text('{"schema": "smn.run/1"}')
    with pytest.raises(DataError, match="is a run folder: smn eval and smn embed take it with --run"):
        load_backbone(RESNET, tmp_path)
