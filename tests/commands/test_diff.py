"""smn diff counts what two masks share, says what else differs, and refuses adapters of different bases."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from smn_cli.adapters.adapter import load_adapter, make_adapter
from tests.commands.conftest import Road
from tests.conftest import RESNET, Outcome

Run = Callable[..., Outcome]


def write_variant(road: Road, path: Path, *, codec: str, seed: int = 5) -> tuple[int, int, int]:
    """An adapter that cuts a tenth of the first masked tensor and nothing else; both, either, weights cut by both."""
    state = {name: tensor for name, tensor in load_file(road.weights).items() if not name.startswith("fc.")}
    first = load_adapter(road.adapter)
    own = first.masks(state)
    name = next(iter(own))
    masks = {each: torch.ones_like(mask) for each, mask in own.items()}
    masks[name] = torch.rand(own[name].shape, generator=torch.Generator().manual_seed(seed)) > 0.1
    make_adapter(state, masks, arch=RESNET, codec=codec, provenance={"seed": seed}).save(path)
    pairs = [
        (bool(a), bool(b))
        for each, mask in own.items()
        for a, b in zip(mask.view(-1).tolist(), masks[each].view(-1).tolist(), strict=True)
    ]
    return sum(not a and not b for a, b in pairs), sum(not (a and b) for a, b in pairs), len(pairs)


@pytest.mark.slow
@pytest.mark.parametrize("codec", ["bits", "context"])
def test_agreement_and_jaccard_are_counted_bit_by_bit(road: Road, run_cli: Run, tmp_path: Path, codec: str) -> None:
    both, either, num_weights = write_variant(road, tmp_path / "b.safetensors", codec=codec)
    assert 0 < both < either
    words = ["diff", road.adapter, tmp_path / "b.safetensors", "--weights", road.weights, "--json", "-"]
    outcome = run_cli(*words)
    assert outcome.code == 0, outcome.err
    content = json.loads(outcome.out)
    assert content["schema"] == "smn.diff/1"
    assert content["jaccard"] == both / either
    assert content["agreement"] == (num_weights - either + both) / num_weights
    assert sum(each["both_cut"] for each in content["masks"]) == both
    assert content["differs"]["provenance.seed"] == [None, 5]
    assert not content["same_network"]


@pytest.mark.slow
def test_files_of_codecs_that_need_no_base_are_compared_without_weights(
    road: Road, run_cli: Run, tmp_path: Path
) -> None:
    write_variant(road, tmp_path / "a.safetensors", codec="bits")
    write_variant(road, tmp_path / "b.safetensors", codec="lzma", seed=6)
    outcome = run_cli("diff", tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    assert outcome.code == 0, outcome.err
    assert "codec: bits and lzma" in outcome.out
    assert "provenance.seed: 5 and 6" in outcome.out


def test_a_file_agrees_with_itself_wholly(road: Road, run_cli: Run) -> None:
    outcome = run_cli("diff", road.adapter, road.adapter, "--weights", road.weights, "--json", "-")
    content = json.loads(outcome.out)
    assert (content["agreement"], content["jaccard"], content["differs"], content["same_network"]) == (1, 1, {}, True)


def test_adapters_of_different_bases_are_a_mismatch(road: Road, run_cli: Run, tmp_path: Path) -> None:
    state = {name: tensor for name, tensor in load_file(road.other_weights).items() if not name.startswith("fc.")}
    masks = load_adapter(road.adapter).masks(load_file(road.weights))
    make_adapter(state, masks, arch=RESNET, codec="bits").save(tmp_path / "x.safetensors")
    outcome = run_cli("diff", road.adapter, tmp_path / "x.safetensors", "--weights", road.weights)
    assert (outcome.code, outcome.out) == (4, "")
    assert "are for different bases" in outcome.err


def test_a_damaged_file_is_named(road: Road, run_cli: Run, tmp_path: Path) -> None:
    (tmp_path / "cut.safetensors").write_bytes(road.adapter.read_bytes()[:-1])
    outcome = run_cli("diff", road.adapter, tmp_path / "cut.safetensors", "--weights", road.weights)
    assert outcome.code == 6
    assert "cut.safetensors cannot be used" in outcome.err


def test_statistics_that_differ_are_listed(road: Road, run_cli: Run, tmp_path: Path) -> None:
    state = {name: tensor for name, tensor in load_file(road.weights).items() if not name.startswith("fc.")}
    masks = load_adapter(road.adapter).masks(state)
    means = {name: tensor + 1 for name, tensor in state.items() if name.endswith("running_mean")}
    for number, moved in enumerate((means, {**means, next(iter(means)): means[next(iter(means))] + 1})):
        adapter = make_adapter(state, masks, arch=RESNET, codec="bits", norm_stats=moved)
        adapter.save(tmp_path / f"{number}.safetensors")
    words = ["diff", tmp_path / "0.safetensors", tmp_path / "1.safetensors", "--json", "-"]
    assert json.loads(run_cli(*words).out)["norm_stats"] == [next(iter(means))]
