"""Adapter files of every released format version load for ever and rebuild the same bits."""

import hashlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from smn_cli.adapters.adapter import adapter_from_bytes, load_adapter
from tests.golden.make_golden import FILES, base, golden_adapter, masks, statistics

FOLDER = Path(__file__).parents[1] / "golden"
SHA256 = {
    "base.safetensors": "8d8c6febc31cef4cc5ca5de4e5b7046a2cbf77568fe6cb896d648a73d80be1d7",
    "v1_bits.safetensors": "138a3dc006f90a8989a9fd5f5ac2ff95d345976389185e53cb5839221485014d",
    "v1_bits_norm_stats.safetensors": "6f02fbb6bc6eb85d6ecc2e78284d00357d1ee39a108713eb0ea1c27708e29fce",
    "v1_lzma.safetensors": "6e493fc7483cd790be1b7cefb41f3de79a9bacc3d576e89f3398730179d6f9f0",
    "v1_lzma_norm_stats.safetensors": "1b1875ab6c36e56a6d53efaf14a0d3c064f60fd4d83101e36acb231a423381b5",
}
DENSITIES = {"blocks.0.weight": (30, 36), "blocks.10.weight": (39, 45), "stem.weight": (93, 108)}


@pytest.mark.parametrize("name", sorted(SHA256))
def test_golden_files_are_never_remade(name: str) -> None:
    assert hashlib.sha256((FOLDER / name).read_bytes()).hexdigest() == SHA256[name]


def test_every_golden_file_is_tested() -> None:
    assert {path.name for path in FOLDER.glob("*.safetensors")} == set(SHA256) == {*FILES, "base.safetensors"}


@pytest.mark.parametrize("name", FILES)
def test_a_golden_file_holds_the_masks_and_statistics_it_was_made_of(name: str) -> None:
    codec, has_norm_stats = FILES[name]
    recorded = load_file(FOLDER / "base.safetensors")
    adapter = load_adapter(FOLDER / name)
    found = adapter.masks(recorded)
    assert found.keys() == masks().keys()
    assert all(torch.equal(found[key], mask) for key, mask in masks().items())
    assert {entry.name: (entry.num_kept, entry.num_weights) for entry in adapter.header.masks} == DENSITIES
    rebuilt = adapter.rebuild(recorded)
    expected = statistics() if has_norm_stats else {key: recorded[key] for key in statistics()}
    assert all(torch.equal(rebuilt[key], tensor) for key, tensor in expected.items())
    assert (adapter.header.arch, adapter.header.tag, adapter.header.codec) == ("golden", "v1", codec)
    assert adapter.header.preprocessing["std"] == [0.25, 0.25, 0.25]
    assert adapter.header.provenance["note"] == "caf\u00e9 \u2713"


def test_the_recorded_base_is_the_one_of_the_script() -> None:
    recorded = load_file(FOLDER / "base.safetensors")
    assert recorded.keys() == base().keys()
    assert all(torch.equal(recorded[name], tensor) for name, tensor in base().items())


@pytest.mark.parametrize("name", [name for name in FILES if "bits" in name])
def test_the_script_still_writes_the_same_bytes(name: str) -> None:
    codec, has_norm_stats = FILES[name]
    assert golden_adapter(codec, has_norm_stats=has_norm_stats).to_bytes() == (FOLDER / name).read_bytes()


@pytest.mark.parametrize("name", FILES)
def test_reading_and_writing_a_golden_file_gives_its_bytes(name: str) -> None:
    data = (FOLDER / name).read_bytes()
    assert adapter_from_bytes(data).to_bytes() == data
