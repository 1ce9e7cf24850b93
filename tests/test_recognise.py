"""A file in another's place is called what it is; nothing waits for a pipe."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from smn_cli.adapters.adapter import load_adapter
from smn_cli.errors import AdapterFileError
from smn_cli.recognise import kind_of_bytes, kind_of_file

GOLDEN = Path(__file__).parent / "golden"


def weights(path: Path) -> None:
    save_file({"a": torch.ones(2)}, path)


def torch_file(path: Path) -> None:
    torch.save({"a": torch.ones(2)}, path)


def image(path: Path) -> None:
    Image.new("RGB", (3, 3)).save(path, "PNG")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (weights, "expected an adapter: it is a checkpoint of weights, which goes with --weights"),
        (torch_file, "expected an adapter: it is a PyTorch file, which goes with --weights"),
        (image, "expected an adapter: it is an image"),
        (Path.mkdir, "is a folder: expected a file"),
    ],
)
def test_what_is_no_adapter(tmp_path: Path, make: Callable[[Path], None], words: str) -> None:
    make(tmp_path / "x")
    with pytest.raises(AdapterFileError, match=words):
        load_adapter(tmp_path / "x")


def test_an_adapter_that_was_altered_is_still_called_so(tmp_path: Path) -> None:
    data = bytearray((GOLDEN / "v1_bits.safetensors").read_bytes())
    data[-40] ^= 1
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(AdapterFileError, match="truncated or altered"):
        load_adapter(tmp_path / "x")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes with names")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x")
    with pytest.raises(AdapterFileError, match="is a pipe, a socket or a device"):
        load_adapter(tmp_path / "x")


@pytest.mark.parametrize(
    "data", [b"", b"\0" * 7, b"\xff" * 99, b"\x05" + b"\0" * 7 + b"[1,2]", b"\2" + b"\0" * 7 + b"{}"]
)
def test_bytes_that_show_nothing(data: bytes) -> None:
    assert kind_of_bytes(data) is None


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert kind_of_file(tmp_path / "x") is None
