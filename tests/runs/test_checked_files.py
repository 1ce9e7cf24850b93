"""Tensors in files with a digest: mapped they are what they are when read, and damage is seen first."""

from pathlib import Path

import pytest
import torch

from smn_cli.errors import CheckpointError
from smn_cli.runs import checked_files
from smn_cli.runs.checked_files import read_tensors, write_tensors

TENSORS = {
    "half": torch.randn(7, 5).half(),
    "places": torch.arange(30, dtype=torch.int32).view(6, 5),
    "mean": torch.randn(5),
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "some.safetensors"
    write_tensors(path, TENSORS)
    return path


@pytest.mark.parametrize("mapped_from", [0, 10**9])
def test_mapped_or_read_tensors_are_those_that_were_written(
    mapped_from: int, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checked_files, "MAPPED_FROM_BYTES", mapped_from)
    before = file.read_bytes()
    found = read_tensors(file)
    assert found.keys() == TENSORS.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in TENSORS.items())
    maps = Path("/proc/self/maps")
    if maps.exists():
        assert (str(file) in maps.read_text()) == (mapped_from == 0)
    found["half"][0] = 3  # a map is private
    assert file.read_bytes() == before


def test_a_file_with_what_cannot_be_mapped_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checked_files, "MAPPED_FROM_BYTES", 0)
    tensors = {"brain": torch.ones(2, dtype=torch.bfloat16), "empty": torch.empty(0, 3)}
    write_tensors(tmp_path / "x", tensors)
    found = read_tensors(tmp_path / "x")
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())


@pytest.mark.parametrize("mapped_from", [0, 10**9])
def test_a_changed_byte_or_end_is_refused(mapped_from: int, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checked_files, "MAPPED_FROM_BYTES", mapped_from)
    whole = file.read_bytes()
    for place in range(0, len(whole), 37):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(CheckpointError, match="damaged"):
            read_tensors(file)
        file.write_bytes(whole[:place])
        with pytest.raises(CheckpointError, match="damaged"):
            read_tensors(file)
