"""An adapter rebuilds exactly what it was made of, as bytes, as a state dict and on a live network."""

import hashlib
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from smn_cli.adapters.adapter import Adapter, adapter_from_bytes, load_adapter, make_adapter
from smn_cli.adapters.codecs import CODECS
from smn_cli.adapters.fingerprint import fingerprint
from smn_cli.adapters.statistics import round_statistics
from smn_cli.errors import MismatchError, UsageError
from tests.adapters.forging import random_masks, toy_adapter, toy_base, toy_masks, toy_statistics
from tests.conftest import CONVNET, RESNET, VIT, random_weights

ROOT = Path(__file__).parents[2]


def backbone(arch: str, *, num_classes: int = 0) -> nn.Module:
    model: nn.Module = timm.create_model(arch, pretrained=False, num_classes=num_classes)
    model.load_state_dict(random_weights(arch), strict=False)
    return model.eval()


def adapter_for(model: nn.Module, *, seed: int = 0, statistics: bool = False, codec: str = "auto") -> Adapter:
    base = model.state_dict()
    moved = {
        name: tensor * 1.1 + 0.01 for name, tensor in base.items() if name.endswith(("running_mean", "running_var"))
    }
    return make_adapter(
        base,
        random_masks(base, density=0.8, seed=seed),
        arch="any",
        codec=codec,
        norm_stats=moved if statistics else None,
    )


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    """Bit for bit, the sign of zero included."""
    return first.keys() == second.keys() and all(
        first[name].dtype == second[name].dtype
        and first[name].shape == second[name].shape
        and first[name].contiguous().numpy().tobytes() == second[name].contiguous().numpy().tobytes()
        for name in first
    )


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("statistics", [False, True])
@pytest.mark.parametrize("codec", ["bits", "lzma", "context", "context2"])
def test_reading_and_writing_again_gives_the_same_bytes(codec: str, statistics: bool) -> None:
    data = toy_adapter(codec, statistics=statistics).to_bytes()
    again = adapter_from_bytes(data)
    assert again.to_bytes() == data
    assert again.header == toy_adapter(codec, statistics=statistics).header
    assert again.header.codec == codec


def test_licence_and_description_travel_in_the_header_alone() -> None:
    plain = toy_adapter("bits")
    said = plain.described(licence="apache-2.0", description="Steel plates, 2024; Größe 96")
    again = adapter_from_bytes(said.to_bytes())
    assert (again.header.licence, again.header.description) == ("apache-2.0", "Steel plates, 2024; Größe 96")
    assert again.to_bytes() == said.to_bytes() != plain.to_bytes()
    assert same(again.rebuild(toy_base()), plain.rebuild(toy_base()))
    assert again.described(description="other").header.licence == "apache-2.0"
    assert again.described(licence="", description="").to_bytes() == plain.to_bytes()
    for text in ("two\nlines", "x" * 4097, "\x1b[31m"):
        with pytest.raises(UsageError, match=r"`description` has \d+ characters: expected one printable line"):
            plain.described(description=text)
    with pytest.raises(UsageError, match="`license` has 513 characters"):
        plain.described(licence="x" * 513)


@pytest.mark.slow
def test_a_second_process_writes_the_same_bytes() -> None:
    code = (
        "import hashlib\nfrom tests.adapters.forging import toy_adapter\n"
        "for codec in ('bits', 'lzma', 'context', 'context2'):\n"
        "    print(hashlib.sha256(toy_adapter(codec).to_bytes()).hexdigest())"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONHASHSEED": "123"},
    )
    here = [hashlib.sha256(toy_adapter(codec).to_bytes()).hexdigest() for codec in CODECS]
    assert done.stdout.split() == here


def test_the_order_of_tensors_does_not_matter() -> None:
    def made(*, reverse: bool) -> bytes:
        def ordered(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
            return dict(sorted(tensors.items(), reverse=reverse))

        return make_adapter(
            ordered(toy_base()), ordered(toy_masks()), arch="toy", norm_stats=ordered(toy_statistics())
        ).to_bytes()

    assert made(reverse=True) == made(reverse=False)


@pytest.mark.slow
@pytest.mark.parametrize("codec", ["bits", "lzma", "context", "context2"])
@pytest.mark.parametrize("arch", [CONVNET, VIT, RESNET])
def test_rebuilt_weights_are_the_weights_of_equation_2(arch: str, codec: str, tmp_path: Path) -> None:
    base = random_weights(arch)
    masks = random_masks(base, density=0.7)
    make_adapter(base, masks, arch=arch, codec=codec).save(tmp_path / "a.safetensors")
    rebuilt = load_adapter(tmp_path / "a.safetensors").rebuild(base)
    expected = dict(base)
    for name, mask in masks.items():
        kept = mask.numpy()
        scale = np.float32(math.sqrt(kept.size / int(kept.sum())))
        expected[name] = torch.from_numpy(np.where(kept, base[name].numpy() * scale, np.float32(0)))
        assert 1 < scale < 3
    assert same(rebuilt, expected)
    assert same(load_adapter(tmp_path / "a.safetensors").masks(base), dict(sorted(masks.items())))


def test_rounded_statistics_come_back_bit_for_bit_at_two_bytes_a_value() -> None:
    rebuilt = adapter_from_bytes(toy_adapter().to_bytes()).rebuild(toy_base())
    for name, tensor in toy_statistics().items():
        assert rebuilt[name].numpy().tobytes() == round_statistics(tensor).numpy().tobytes()
    assert toy_adapter().norm_stats_bytes == 12


def test_an_all_ones_mask_is_the_base() -> None:
    base = random_weights(RESNET)
    ones = {name: torch.ones_like(mask) for name, mask in random_masks(base, density=1.0).items()}
    assert same(make_adapter(base, ones, arch=RESNET).rebuild(base), base)


@pytest.mark.slow
@pytest.mark.parametrize(("arch", "statistics"), [(CONVNET, False), (CONVNET, True), (VIT, False)])
def test_apply_and_remove_in_place_are_exact(arch: str, statistics: bool) -> None:
    model = backbone(arch)
    before, adapter = snapshot(model), adapter_for(model, statistics=statistics)
    images = torch.rand(1, 3, *(2 * [160 if arch == VIT else 32]))
    with torch.inference_mode():
        features = model(images)
        parameters = dict(model.named_parameters())
        assert adapter.apply(model) is model
        assert same(snapshot(model), adapter.rebuild(before))
        assert all(parameters[name] is parameter for name, parameter in model.named_parameters())
        assert not torch.allclose(model(images), features, atol=1e-3)
        assert adapter.remove(model) is model
        assert same(snapshot(model), before)
        assert torch.equal(model(images), features)


@pytest.mark.slow
def test_switching_adapters_equals_applying_to_a_fresh_base() -> None:
    model = backbone(CONVNET)
    before = snapshot(model)
    first, second = adapter_for(model, seed=1, statistics=True), adapter_for(model, seed=2)
    first.apply(model)
    second.apply(model)
    assert same(snapshot(model), second.rebuild(before))
    first.apply(model)
    first.apply(model)
    assert same(snapshot(model), first.rebuild(before))
    second.remove(model)  # any adapter takes off whichever is on
    assert same(snapshot(model), before)


@pytest.mark.parametrize("codec", ["bits", "lzma", "context", "context2"])
def test_an_adapter_applied_before_still_checks_its_base(codec: str) -> None:
    model = backbone(CONVNET)
    before, adapter = snapshot(model), adapter_for(model, codec=codec)
    first = adapter.rebuild(before)
    assert same(adapter.rebuild(before), first)
    changed = {**before, "conv_stem.weight": before["conv_stem.weight"] + 1}
    with pytest.raises(MismatchError, match=r"first conv_stem\.weight"):
        adapter.rebuild(changed)


def test_two_networks_hold_their_own_adapters() -> None:
    one, other = backbone(CONVNET), backbone(CONVNET)
    before, adapter = snapshot(one), adapter_for(one)
    adapter.apply(one)
    adapter.remove(other)
    assert same(snapshot(one), adapter.rebuild(before))
    assert same(snapshot(other), before)


def test_remove_without_apply_does_nothing() -> None:
    model = backbone(RESNET)
    before = snapshot(model)
    adapter_for(model).remove(model)
    assert same(snapshot(model), before)


@pytest.mark.slow
def test_a_second_remove_leaves_alone_what_was_loaded_since() -> None:
    model = backbone(RESNET)
    adapter = adapter_for(model)
    adapter.remove(adapter.apply(model))
    model.load_state_dict(random_weights(RESNET, seed=7), strict=False)
    since = snapshot(model)
    adapter.remove(model)
    assert same(snapshot(model), since)


@pytest.mark.slow
def test_a_refused_adapter_leaves_the_network_at_its_base() -> None:
    model = backbone(CONVNET)
    before = snapshot(model)
    own = adapter_for(model)
    stranger = make_adapter(random_weights(RESNET), random_masks(random_weights(RESNET), density=0.9), arch=RESNET)
    own.apply(model)
    with pytest.raises(MismatchError):
        stranger.apply(model)
    assert same(snapshot(model), before)


@pytest.mark.slow
@pytest.mark.parametrize("arch", [CONVNET, VIT, RESNET])
def test_a_network_with_a_classifier_on_top_can_be_adapted(arch: str) -> None:
    headless, full = backbone(arch), backbone(arch, num_classes=1000)
    before, adapter = snapshot(full), adapter_for(headless)
    extra = before.keys() - headless.state_dict().keys()
    assert extra
    adapter.apply(full)
    after, expected = snapshot(full), adapter.rebuild(headless.state_dict())
    assert same({name: after[name] for name in expected}, expected)
    assert same({name: after[name] for name in extra}, {name: before[name] for name in extra})


def test_the_base_itself_is_never_written_to() -> None:
    base = random_weights(CONVNET)
    digest = fingerprint(base).digest
    adapter = make_adapter(base, random_masks(base, density=0.5), arch=CONVNET)
    rebuilt = adapter.rebuild(base)
    assert fingerprint(base).digest == digest
    assert fingerprint(rebuilt).digest == adapter.header.adapted_digest != digest
    assert adapter.header.base_digest == digest


@pytest.mark.slow
def test_a_base_through_a_safetensors_file_is_the_same_base(tmp_path: Path) -> None:
    base = random_weights(VIT)
    save_file(base, tmp_path / "base.safetensors")
    adapter = make_adapter(base, random_masks(base, density=0.9), arch=VIT)
    assert same(adapter.rebuild(load_file(tmp_path / "base.safetensors")), adapter.rebuild(base))


def test_what_could_not_be_read_back_is_not_made() -> None:
    empty = {**toy_masks(), "fc.weight": torch.zeros(5, 3, dtype=torch.bool)}
    with pytest.raises(ValueError, match="keeps 0 of 15"):
        make_adapter(toy_base(), empty, arch="toy")
    for wrong in (math.nan, math.inf):
        statistics = {"norm.running_mean": torch.tensor([0.0, wrong, 0.0])}
        with pytest.raises(ValueError, match="not all finite"):
            make_adapter(toy_base(), toy_masks(), arch="toy", norm_stats=statistics)
    with pytest.raises(UsageError, match="zip is unknown"):
        make_adapter(toy_base(), toy_masks(), arch="toy", codec="zip")
