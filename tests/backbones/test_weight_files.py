"""Weights are found in every usual wrapping, and no file can make smn run code, hang or guess."""

from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from smn_cli.backbones.weight_files import read_weight_file
from smn_cli.errors import DataError, FileError
from tests.conftest import Trap

STATE = {"conv.weight": torch.arange(12.0).view(3, 4), "conv.bias": torch.tensor([1.0, 2.0, 3.0])}


def assert_state(found: dict[str, Tensor]) -> None:
    """The tensors of STATE, no more."""
    assert found.keys() == STATE.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in STATE.items())


def prefixed(prefix: str) -> dict[str, Tensor]:
    """STATE under longer names."""
    return {prefix + name: tensor for name, tensor in STATE.items()}


@pytest.mark.parametrize("name", ["w.pth", "w.pt", "w.pth.tar", "w.bin", "noext"])
@pytest.mark.parametrize("is_zip", [True, False])
def test_plain_state_dicts_are_read_whatever_the_name_and_age(tmp_path: Path, name: str, is_zip: bool) -> None:
    torch.save(STATE, tmp_path / name, _use_new_zipfile_serialization=is_zip)
    found = read_weight_file(tmp_path / name)
    assert_state(found.tensors)
    assert found.notes == ()


@pytest.mark.parametrize("name", ["w.safetensors", "w.bin"])
def test_safetensors_are_known_by_name_or_content(tmp_path: Path, name: str) -> None:
    save_file(STATE, tmp_path / name)
    assert_state(read_weight_file(tmp_path / name).tensors)


@pytest.mark.parametrize("key", ["state_dict", "model", "model_state_dict", "state_dict_ema", "model_ema", "teacher"])
def test_nested_weights_are_found_and_it_is_said(tmp_path: Path, key: str) -> None:
    torch.save({"epoch": 3, "arch": "x", key: STATE, "optimizer": {"lr": 0.1}}, tmp_path / "w.pth")
    found = read_weight_file(tmp_path / "w.pth")
    assert_state(found.tensors)
    assert found.notes == (f"took the weights under {key!r}",)


def test_tensors_of_the_training_beside_nested_weights_do_not_hide_them(tmp_path: Path) -> None:
    # as PyTorch's ImageNet example writes it
    torch.save({"best_acc1": torch.tensor(76.1), "state_dict": prefixed("module.")}, tmp_path / "w.pth.tar")
    found = read_weight_file(tmp_path / "w.pth.tar")
    assert_state(found.tensors)
    assert found.notes == ("took the weights under 'state_dict'", "stripped the prefix 'module.'")


def test_an_empty_ema_does_not_hide_the_weights(tmp_path: Path) -> None:
    torch.save({"state_dict_ema": {}, "state_dict": STATE}, tmp_path / "w.pth")
    assert_state(read_weight_file(tmp_path / "w.pth").tensors)


def test_averaged_weights_go_before_the_last_ones(tmp_path: Path) -> None:
    last = {name: tensor + 1 for name, tensor in STATE.items()}
    torch.save({"state_dict": last, "state_dict_ema": STATE}, tmp_path / "w.pth")
    assert_state(read_weight_file(tmp_path / "w.pth").tensors)


def test_weights_nested_twice_are_found(tmp_path: Path) -> None:
    torch.save({"model": {"state_dict": STATE}}, tmp_path / "w.pth")
    assert_state(read_weight_file(tmp_path / "w.pth").tensors)


@pytest.mark.parametrize("prefix", ["module.", "model.", "backbone.", "_orig_mod.", "encoder.", "module.backbone."])
def test_prefixes_that_all_names_share_are_stripped_and_it_is_said(tmp_path: Path, prefix: str) -> None:
    save_file(prefixed(prefix), tmp_path / "w.safetensors")
    found = read_weight_file(tmp_path / "w.safetensors")
    assert_state(found.tensors)
    assert found.notes == tuple(f"stripped the prefix '{part}.'" for part in prefix.split(".")[:-1])


def test_a_prefix_of_some_names_only_stays(tmp_path: Path) -> None:
    save_file({**prefixed("module."), "head.weight": torch.ones(1)}, tmp_path / "w.safetensors")
    assert read_weight_file(tmp_path / "w.safetensors").tensors.keys() == {*prefixed("module."), "head.weight"}


@pytest.mark.parametrize("is_zip", [True, False])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_malicious_pickle_is_refused_without_running_it(tmp_path: Path, is_zip: bool, suffix: str) -> None:
    path, trace = tmp_path / f"w{suffix}", tmp_path / "ran"
    torch.save({**STATE, "x": Trap(trace)}, path, _use_new_zipfile_serialization=is_zip)
    with pytest.raises(FileError, match=r"Python objects besides tensors|not a readable safetensors"):
        read_weight_file(path)
    assert not trace.exists()
    torch.load(path.rename(tmp_path / "w.pth"), weights_only=False)  # the trap was a real one
    assert trace.exists()


def test_options_beside_the_weights_do_not_hide_them_nor_let_anything_in(tmp_path: Path) -> None:
    torch.save({"args": Namespace(lr=0.1, crops=[1, 2]), "model": STATE}, tmp_path / "w.pth")
    assert_state(read_weight_file(tmp_path / "w.pth").tensors)
    trace = tmp_path / "ran"
    torch.save({"args": Namespace(lr=Trap(trace)), "model": STATE}, tmp_path / "w.pth")
    with pytest.raises(FileError, match="Python objects besides tensors"):
        read_weight_file(tmp_path / "w.pth")
    assert not trace.exists()


def test_a_whole_pickled_model_is_refused_with_what_to_do(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "w.pth")
    with pytest.raises(
        FileError, match=r"w\.pth cannot be opened as weights \(it holds Python objects.*save its state"
    ):
        read_weight_file(tmp_path / "w.pth")


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.95])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_truncated_file_is_refused_in_one_line(tmp_path: Path, suffix: str, share: float) -> None:
    path = tmp_path / f"w{suffix}"
    large = {"weight": torch.zeros(1000)}
    torch.save(large, path) if suffix == ".pth" else save_file(large, path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(FileError) as error_info:
        read_weight_file(path)
    assert str(error_info.value).startswith(f"{path} ")
    assert "\n" not in str(error_info.value)


def test_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_text("<html>404</html>")
    with pytest.raises(FileError, match=r"w\.pth cannot be opened as weights \(it is no PyTorch file\)"):
        read_weight_file(tmp_path / "w.pth")


def circular() -> dict[str, Any]:
    """A dictionary that holds itself, which a pickle of plain values may do."""
    content: dict[str, Any] = {"epoch": 1}
    content["model"] = content
    return content


@pytest.mark.parametrize(
    "content",
    [{}, {"epoch": 3}, {"state_dict": {}}, {"state_dict": {"epoch": 3}}, [torch.ones(2)], torch.ones(2), circular()],
    ids=["empty", "no tensors", "nested empty", "nested no tensors", "a list", "a tensor", "holds itself"],
)
def test_what_is_no_state_dict_is_refused(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(FileError, match="holds no state dict: expected tensors by name, plain or under 'state_dict'"):
        read_weight_file(tmp_path / "w.pth")


def test_names_that_are_no_text_and_values_that_are_no_tensors_are_left_out(tmp_path: Path) -> None:
    content: dict[Any, Any] = {**STATE, 7: torch.ones(1), "version": "1.0", "config": {"a": 1}}
    torch.save(content, tmp_path / "w.pth")
    assert_state(read_weight_file(tmp_path / "w.pth").tensors)


@pytest.mark.parametrize(
    ("name", "words"),
    [("gone.pth", r"does not exist: expected a \.safetensors"), ("folder.pth", "is a folder: expected a file")],
)
def test_a_missing_file_and_a_folder_are_named(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / "folder.pth").mkdir()
    with pytest.raises(DataError, match=rf"`weights` {tmp_path / name} {words}"):
        read_weight_file(tmp_path / name)


def test_a_prefix_that_the_network_has_itself_stays(tmp_path: Path) -> None:
    save_file({"module.encoder.a": torch.zeros(1), "module.encoder.b": torch.ones(1)}, tmp_path / "w.safetensors")
    assert read_weight_file(tmp_path / "w.safetensors").tensors.keys() == {"a", "b"}
    found = read_weight_file(tmp_path / "w.safetensors", wanted=["encoder.a", "encoder.c"])
    assert found.tensors.keys() == {"encoder.a", "encoder.b"}
    assert found.notes == ("stripped the prefix 'module.'",)
