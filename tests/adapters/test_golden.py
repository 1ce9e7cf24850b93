"""Adapter files of every released format version load for ever and rebuild the same bits."""

import hashlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from smn_cli.adapters.adapter import adapter_from_bytes, load_adapter
from smn_cli.adapters.statistics import round_statistics
from tests.golden.make_golden import (
    FILES,
    WITH_HEAD,
    WITH_READOUT,
    WITH_WORDS,
    base,
    golden_adapter,
    golden_adapter_with_head,
    golden_adapter_with_readout,
    golden_adapter_with_words,
    head,
    masks,
    readout,
    statistics,
)

FOLDER = Path(__file__).parents[1] / "golden"
SHA256 = {
    "base.safetensors": "8d8c6febc31cef4cc5ca5de4e5b7046a2cbf77568fe6cb896d648a73d80be1d7",
    "v1_bits.safetensors": "4e3d7c866d2de7bcea6eb8c2270cb42c557ba278f944daf2fd42993c6970c170",
    "v1_bits_described.safetensors": "7482b39208c01222f09c76ca3fb56e7b229498a4698ff1c93a17afdce1593953",
    "v1_bits_head.safetensors": "9eab98e12de9d0676350fb29c4e72bbf3f3c7bb14f481bdfd43bb7b453e40451",
    "v1_bits_norm_stats.safetensors": "cdcbde337fddc6f20283b8525490d4d7ba9fa6dac097f5727b3570f95bfe8f2f",
    "v1_bits_readout_centred.safetensors": "ac91ac990df9f6a55581ecf9c700fef0e416ca1ea974a3044350ee153ee03887",
    "v1_bits_readout_stages.safetensors": "2e56cee2e465b52722d2b93c6f442105136144d1f92298d97e80351bd51dab83",
    "v1_context.safetensors": "32dddec7ccf8474010ff916af1b00c5e55d4544cc1becee0811ebe08fac927af",
    "v1_context_norm_stats.safetensors": "54b290672740dbc310f7d9091570996f67639c8a78681e1354f28e0c35bc03a6",
    "v1_context2.safetensors": "95aa3ff7088c2284d71eb7d1c1d1540f09c575f1bdf295b38b7e0150025a187f",
    "v1_context2_norm_stats.safetensors": "6742b9bbd1767dab864205c33c86a2d331d25b8a6aff3b16dc41ec1858f21e35",
    "v1_lzma.safetensors": "b537eb6af831bb3c949d70a749190367011e74e4e89f2b2e354706c218c34d84",
    "v1_lzma_norm_stats.safetensors": "dab9f9a49ffef142a4f1c5d82a8ab5c2b1a7593b9e98ebae6579c99e3290b542",
}
DENSITIES = {"blocks.0.weight": (30, 36), "blocks.10.weight": (39, 45), "stem.weight": (93, 108)}


@pytest.mark.parametrize("name", sorted(SHA256))
def test_golden_files_are_never_remade(name: str) -> None:
    assert hashlib.sha256((FOLDER / name).read_bytes()).hexdigest() == SHA256[name]


def test_every_golden_file_is_tested() -> None:
    made = {*FILES, WITH_HEAD, *WITH_READOUT, WITH_WORDS, "base.safetensors"}
    assert {path.name for path in FOLDER.glob("*.safetensors")} == set(SHA256) == made


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
    carried = {key: round_statistics(tensor) for key, tensor in statistics().items()}
    expected = carried if has_norm_stats else {key: recorded[key] for key in statistics()}
    assert all(torch.equal(rebuilt[key], tensor) for key, tensor in expected.items())
    assert (adapter.header.arch, adapter.header.tag, adapter.header.codec) == ("golden", "v1", codec)
    assert adapter.header.preprocessing["std"] == [0.25, 0.25, 0.25]
    assert adapter.header.provenance["note"] == "caf\u00e9 \u2713"


def test_the_recorded_base_is_the_one_of_the_script() -> None:
    recorded = load_file(FOLDER / "base.safetensors")
    assert recorded.keys() == base().keys()
    assert all(torch.equal(recorded[name], tensor) for name, tensor in base().items())


@pytest.mark.parametrize("name", [name for name in FILES if "lzma" not in name])
def test_the_script_still_writes_the_same_bytes(name: str) -> None:
    codec, has_norm_stats = FILES[name]
    assert golden_adapter(codec, has_norm_stats=has_norm_stats).to_bytes() == (FOLDER / name).read_bytes()


def test_the_golden_head_is_the_one_it_was_made_of_and_the_script_still_writes_it() -> None:
    read = load_adapter(FOLDER / WITH_HEAD).head
    assert read is not None
    assert (read.name, read.classes) == (head().name, head().classes)
    weight = torch.tensor([[-127, -90, -53, -16, 21], [58, 95, -123, -86, -49], [-12, 25, 62, 99, -119]]) / 64
    assert torch.equal(read.classifier().weight, weight * torch.tensor([[1.0], [2.0], [3.0]]))
    assert read.classifier().bias.tolist() == [-0.75, -0.5, -0.25]
    assert golden_adapter_with_head().to_bytes() == (FOLDER / WITH_HEAD).read_bytes()


def test_the_golden_words_are_those_it_was_made_of_and_the_script_still_writes_them() -> None:
    read = load_adapter(FOLDER / WITH_WORDS)
    assert (read.header.licence, read.header.description) == ("cc-by-4.0", "Caf\u00e9s at night, 24 of them")
    assert read.made_for == "hf-hub:me/golden"
    recorded = load_file(FOLDER / "base.safetensors")
    plain = load_adapter(FOLDER / "v1_bits.safetensors").rebuild(recorded)
    assert all(torch.equal(tensor, plain[key]) for key, tensor in read.rebuild(recorded).items())
    assert golden_adapter_with_words().to_bytes() == (FOLDER / WITH_WORDS).read_bytes()


@pytest.mark.parametrize("name", WITH_READOUT)
def test_a_golden_readout_is_the_one_it_was_made_of_and_the_script_still_writes_it(name: str) -> None:
    kind = WITH_READOUT[name]
    read = load_adapter(FOLDER / name).readout
    assert read is not None
    assert read.entry == readout(kind).entry
    numbers = read(torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0]]))[0].tolist()
    # (0, 1, 3, 6, 10) are the features times the inputs; levels by row -127 -74 -21 32 85; -117 -64 -11 42 95; ...
    weighed = [(-74 - 63 + 192 + 850) / 32, (-64 - 33 + 252 + 950) / 16, (-54 - 3 + 312 + 1050) * 3 / 32]
    expected = {
        "centred": [1.25, 2.125, 3.0, 3.875, 4.75],
        "stages": [a + b for a, b in zip(weighed, (-0.75, -0.5, -0.25), strict=True)],
    }
    assert numbers == expected[kind]
    assert golden_adapter_with_readout(kind).to_bytes() == (FOLDER / name).read_bytes()


@pytest.mark.parametrize("name", [*FILES, WITH_HEAD])
def test_files_without_a_readout_have_none(name: str) -> None:
    assert load_adapter(FOLDER / name).readout is None


@pytest.mark.parametrize("name", [*FILES, WITH_HEAD, *WITH_READOUT])
def test_reading_and_writing_a_golden_file_gives_its_bytes(name: str) -> None:
    data = (FOLDER / name).read_bytes()
    assert adapter_from_bytes(data).to_bytes() == data
