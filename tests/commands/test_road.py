"""Each command of the main road does its part, says it in the contract's JSON, and keeps stdout for results."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file

from smn_cli.adapters.adapter import load_adapter, make_adapter
from tests.commands.conftest import SHORT, Road
from tests.conftest import RESNET, Outcome

Run = Callable[..., Outcome]


def parsed(outcome: Outcome, schema: str) -> dict[str, Any]:
    """The JSON that stdout holds, all of it; nothing of it went to stderr."""
    assert outcome.code == 0, outcome.err
    content: dict[str, Any] = json.loads(outcome.out)
    assert content["schema"] == schema
    assert outcome.out == json.dumps(content, indent=2) + "\n"
    return content


@pytest.mark.slow
def test_adapt_makes_a_run_folder_and_reports_it(road: Road, run_cli: Run, tmp_path: Path) -> None:
    words = ["adapt", road.images, "--arch", RESNET, "--weights", road.weights, "--out", tmp_path / "run"]
    content = parsed(run_cli(*words, *SHORT.split(), "--json", "-"), "smn.adapt/1")
    assert (content["run"], content["steps"], content["images"]) == (str(tmp_path / "run"), 3, 24)
    assert 0 < content["density"] < 1
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (config["arch"], config["weights"]) == (RESNET, str(road.weights))
    assert config["images"] == {"found": 24, "bad": 0, "good": 24}
    metrics = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in metrics if "loss" in record] == [1, 2, 3]
    assert (tmp_path / "run" / "checkpoint" / "state.pt").is_file()


@pytest.mark.slow
def test_adapt_lists_the_images_it_left_out(road: Road, run_cli: Run, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")
    words = ["adapt", road.images, tmp_path / "broken.png", "--arch", RESNET, "--weights", road.weights]
    outcome = run_cli(*words, "--out", tmp_path / "run", "--max-bad", "0.05", *SHORT.split())
    assert outcome.code == 0, outcome.err
    assert f"24 images, 1 unusable, listed in {tmp_path / 'run' / 'bad_images.txt'}" in outcome.err
    assert (tmp_path / "run" / "bad_images.txt").read_text().startswith(f"{tmp_path / 'broken.png'}\tnot a readable")


@pytest.mark.slow
def test_pack_reports_the_bytes_of_the_file(road: Road, run_cli: Run, tmp_path: Path) -> None:
    out = tmp_path / "a.safetensors"
    content = parsed(run_cli("pack", road.run, "--out", out, "--json", "-"), "smn.pack/1")
    assert content["file"] == str(out)
    assert content["file_bytes"] == out.stat().st_size
    assert content["mask_bytes"] + content["norm_stats_bytes"] + content["metadata_bytes"] == out.stat().st_size
    assert content["ratio"] == pytest.approx(content["fp32_bytes"] / out.stat().st_size)
    assert out.read_bytes() == road.adapter.read_bytes()  # the same run, the same bytes


def test_a_licence_and_a_description_are_packed_and_shown(road: Road, run_cli: Run, tmp_path: Path) -> None:
    out = tmp_path / "a.safetensors"
    words = ("--license", "cc-by-4.0", "--description", "24 coloured squares")
    packed = parsed(run_cli("pack", road.run, "--codec", "lzma", "--out", out, *words, "--json", "-"), "smn.pack/1")
    shown = parsed(run_cli("inspect", out, "--json", "-"), "smn.inspect/1")
    for content in (packed, shown):
        assert (content["license"], content["description"]) == ("cc-by-4.0", "24 coloured squares")
    assert packed["file_bytes"] == out.stat().st_size
    assert "\n24 coloured squares\nlicence cc-by-4.0\n" in run_cli("inspect", out).out
    assert parsed(run_cli("inspect", road.adapter, "--json", "-"), "smn.inspect/1")["license"] == ""
    outcome = run_cli("pack", road.run, "--out", tmp_path / "b.safetensors", "--description", "a\nb")
    assert (outcome.code, outcome.err.splitlines()) == (
        2,
        ["smn: --description has 3 characters: expected one printable line of at most 4096"],
    )


@pytest.mark.parametrize("codec", ["bits", "lzma"])
def test_pack_uses_the_codec_it_is_told(road: Road, run_cli: Run, tmp_path: Path, codec: str) -> None:
    out = tmp_path / "a.safetensors"
    assert (
        parsed(run_cli("pack", road.run, "--out", out, "--codec", codec, "--json", "-"), "smn.pack/1")["codec"] == codec
    )
    base = load_file(road.weights)
    masks, expected = load_adapter(out).masks(base), load_adapter(road.adapter).masks(base)
    assert all(torch.equal(masks[name], mask) for name, mask in expected.items())


@pytest.mark.slow
def test_apply_writes_a_checkpoint_that_timm_loads_and_verify_proves_it(
    road: Road, run_cli: Run, tmp_path: Path
) -> None:
    out = tmp_path / "c.safetensors"
    words = [road.adapter, "--weights", road.weights]
    content = parsed(run_cli("apply", *words, "--out", out, "--json", "-"), "smn.apply/1")
    assert (content["verified"], content["checkpoint"], content["num_classes"]) == (True, str(out), 1000)
    assert (content["checkpoint_bytes"], content["adapter_bytes"]) == (out.stat().st_size, road.adapter.stat().st_size)
    assert content["load_with"] == f"timm.create_model('{RESNET}', checkpoint_path='{out}')"
    model = timm.create_model(RESNET, checkpoint_path=str(out))
    base, adapted = load_file(road.weights), model.state_dict()
    [mask, *_] = load_adapter(road.adapter).masks(base).values()
    weight = adapted[load_adapter(road.adapter).header.masks[0].name]
    assert torch.equal(weight != 0, mask & (base[load_adapter(road.adapter).header.masks[0].name] != 0))
    assert torch.equal(adapted["fc.weight"], base["fc.weight"])
    proof = parsed(run_cli("verify", *words, "--checkpoint", out, "--json", "-"), "smn.verify/1")
    assert (proof["verified"], proof["adapted_digest"], proof["checkpoint"]) == (True, content["digest"], str(out))


def test_verify_refuses_a_checkpoint_that_is_not_the_adapted_network(road: Road, run_cli: Run) -> None:
    outcome = run_cli("verify", road.adapter, "--weights", road.weights, "--checkpoint", road.weights)
    assert outcome.code == 4
    assert "is not the adapted network" in outcome.err


def test_inspect_tells_what_is_in_the_file_without_its_base(road: Road, run_cli: Run) -> None:
    content = parsed(run_cli("inspect", road.adapter, "--json", "-"), "smn.inspect/1")
    assert (content["arch"], content["file"]) == (RESNET, str(road.adapter))
    assert sum(content["bytes"][part] for part in ("mask", "norm_stats", "metadata")) == content["bytes"]["file"]
    kept = sum(mask["kept"] for mask in content["masks"])
    assert content["density"] == pytest.approx(kept / content["weights"])
    assert 0 < content["density"] < 1
    assert content["provenance"]["images"] == 24
    assert content["preprocessing"]["size"] == 32


def test_inspect_tells_teachers_by_name_and_size(run_cli: Run, tmp_path: Path) -> None:
    base = {"a": torch.tensor([1.0, -2.0, 3.0])}
    teachers = [{"name": name, "size": 64, "digest": "f" * 64} for name in ("stages", "resnet18")]
    made = make_adapter(base, {"a": base["a"] > 0}, arch=RESNET, codec="bits", provenance={"teachers": teachers})
    made.save(tmp_path / "a.safetensors")
    shown = run_cli("inspect", tmp_path / "a.safetensors")
    assert (shown.code, shown.out.splitlines()[-1]) == (0, "made with teachers stages at 64 px and resnet18 at 64 px")


def test_eval_compares_base_and_adapted_under_the_keys_of_the_contract(road: Road, run_cli: Run) -> None:
    words = [
        "eval",
        road.labeled,
        "--adapter",
        road.adapter,
        "--weights",
        road.weights,
        "--knn",
        "--linear",
        "--k",
        "5",
    ]
    content = parsed(run_cli(*words, "--min-gain", "knn.top1=-1", "--json", "-"), "smn.eval/1")
    assert content["data"]["train"] == 36
    assert content["data"]["test"] == 18
    assert content["data"]["classes"] == ["blue", "green", "red"]
    for network in ("base", "adapted"):
        assert content[network]["knn"]["k"] == 5
        assert 0 <= content[network]["linear"]["top1"] <= 1
    gain = content["gain"]["knn.top1"]
    assert gain["value"] == pytest.approx(content["adapted"]["knn"]["top1"] - content["base"]["knn"]["top1"])
    assert gain["low"] <= gain["value"] <= gain["high"]
    assert content["verdict"] in ("better", "same", "worse")
    assert content["gates"] == [{"gate": "gain(knn.top1)>=-1", "value": gain["value"], "passed": True}]
    assert content["passed"] is True


def test_eval_of_a_run_equals_eval_of_its_adapter(road: Road, run_cli: Run) -> None:
    of_file = parsed(
        run_cli("eval", road.labeled, "--adapter", road.adapter, "--weights", road.weights, "--json", "-"), "smn.eval/1"
    )
    of_run = parsed(run_cli("eval", road.labeled, "--run", road.run, "--json", "-"), "smn.eval/1")
    for content in (of_file, of_run):
        assert content["native"].pop("milliseconds_an_image").keys() == {"32", "160"}
    assert of_run == of_file


def test_eval_of_a_base_alone_has_no_gain(road: Road, run_cli: Run) -> None:
    words = ["eval", road.labeled, "--arch", RESNET, "--weights", road.weights, "--size", "32"]
    content = parsed(run_cli(*words, "--json", "-"), "smn.eval/1")
    assert not {"adapted", "gain", "verdict"} & content.keys()
    assert content["passed"] is True


@pytest.mark.parametrize(
    "gate", [["--fail-under", "knn.top1=1.01"], ["--min-gain", "knn.top1=2"], ["--fail-under", "native.knn.top1=1.01"]]
)
def test_a_failed_gate_is_exit_code_3_and_the_json_is_still_written(
    road: Road, run_cli: Run, tmp_path: Path, gate: list[str]
) -> None:
    words = ["eval", road.labeled, "--adapter", road.adapter, "--weights", road.weights, *gate]
    outcome = run_cli(*words, "--json", tmp_path / "r.json")
    assert outcome.code == 3
    assert outcome.err.splitlines()[-1].startswith("smn: 1 of 1 gates failed, first ")
    content = json.loads((tmp_path / "r.json").read_text())
    assert content["passed"] is False
    assert [result["passed"] for result in content["gates"]] == [False]


def test_results_go_to_stdout_and_talk_to_stderr(road: Road, run_cli: Run, tmp_path: Path) -> None:
    outcome = run_cli(
        "eval", road.labeled, "--adapter", road.adapter, "--weights", road.weights, "--json", tmp_path / "r"
    )
    assert "verdict: the adapted network is" in outcome.out
    assert "embedding 108/108" in outcome.err
    assert json.loads((tmp_path / "r").read_text())["schema"] == "smn.eval/1"


@pytest.mark.slow
def test_overwrite_replaces_what_is_there(road: Road, run_cli: Run, tmp_path: Path) -> None:
    out = tmp_path / "a.safetensors"
    out.write_text("old")
    assert run_cli("pack", road.run, "--out", out, "--overwrite").code == 0
    assert out.read_bytes() == road.adapter.read_bytes()
