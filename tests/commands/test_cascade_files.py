"""Commands on a cascade file: inspect, verify and apply --expert take it, the others say what it is."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from smn_cli.cascade.file import save_cascade
from tests.cascade.small_cascades import NUM_EXPERTS, small_cascade, small_model
from tests.conftest import CONVNET, Outcome

Run = Callable[..., Outcome]
Weights = Callable[[str], Path]


@pytest.fixture
def cascade_file(tmp_path: Path) -> Path:
    path = tmp_path / "cascade.safetensors"
    save_cascade(path, small_cascade("whitened"))
    return path


def test_inspect_shows_all_parts(cascade_file: Path, run_cli: Run) -> None:
    outcome = run_cli("inspect", cascade_file, "--json", "-")
    assert outcome.code == 0, outcome.err
    content = json.loads(outcome.out)
    assert content["schema"] == "smn.inspect/1"
    assert content["arch"] == CONVNET
    assert content["cascade"]["mode"] == "conditional"
    assert content["cascade"]["combination"]["kind"] == "whitened"
    assert len(content["cascade"]["experts"]) == NUM_EXPERTS
    sizes = content["bytes"]
    assert sizes["file"] == cascade_file.stat().st_size == sum(sizes.values()) - sizes["file"]
    told = run_cli("inspect", cascade_file).out
    assert "3 experts, conditional, router gmm, combination whitened of width 12" in told


def test_verify_rebuilds_dispatcher_and_experts(cascade_file: Path, run_cli: Run, weights_file: Weights) -> None:
    outcome = run_cli("verify", cascade_file, "--weights", weights_file(CONVNET), "--json", "-")
    assert outcome.code == 0, outcome.err
    content = json.loads(outcome.out)
    assert content["verified"]
    assert content["experts"] == [expert.header.adapted_digest for expert in small_cascade().experts]


def test_verify_refuses_another_base(cascade_file: Path, run_cli: Run, weights_file: Weights, tmp_path: Path) -> None:
    other = load_file(weights_file(CONVNET))
    other["conv_stem.weight"].view(-1)[0] += 1
    save_file(other, tmp_path / "other.safetensors")
    outcome = run_cli("verify", cascade_file, "--weights", tmp_path / "other.safetensors")
    assert outcome.code == 4
    assert "made for other weights" in outcome.err


def test_apply_takes_one_expert(cascade_file: Path, run_cli: Run, weights_file: Weights, tmp_path: Path) -> None:
    out, words = tmp_path / "expert.safetensors", ("--weights", weights_file(CONVNET), "--drop-classifier")
    outcome = run_cli("apply", cascade_file, "--expert", 1, "--out", out, *words)
    assert outcome.code == 0, outcome.err
    expected = small_cascade().experts[1].rebuild(small_model().state_dict())
    found = load_file(out)
    assert all(torch.equal(found[name], expected[name]) for name in found)
    refused = run_cli("apply", cascade_file, "--expert", NUM_EXPERTS, "--out", tmp_path / "b.safetensors", *words)
    assert refused.code == 2
    assert f"experts 0 to {NUM_EXPERTS - 1}" in refused.err


@pytest.mark.parametrize(
    "words",
    [
        ("apply", "FILE", "--out", "OUT"),
        ("diff", "FILE", "FILE"),
        ("merge", "FILE", "FILE", "--out", "OUT"),
    ],
)
def test_where_an_adapter_is_needed_a_cascade_is_named(
    words: tuple[str, ...], cascade_file: Path, run_cli: Run, tmp_path: Path
) -> None:
    places = {"FILE": cascade_file, "OUT": tmp_path / "out.safetensors"}
    outcome = run_cli(*(places.get(word, word) for word in words))
    assert outcome.code == 6
    assert "it is a cascade: expected an adapter" in outcome.err
    assert not places["OUT"].exists()


def test_a_damaged_cascade_is_refused(cascade_file: Path, run_cli: Run) -> None:
    data = bytearray(cascade_file.read_bytes())
    data[-100] ^= 1
    cascade_file.write_bytes(bytes(data))
    for command in ("inspect", "verify"):
        outcome = run_cli(command, cascade_file)
        assert outcome.code == 6
        assert "checksum" in outcome.err
        assert len(outcome.err.strip().splitlines()) == 1
