"""--train and --val: the baselines beside the mask, and labels that decide what is kept."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from smn_cli.backbones.loading import load_backbone
from smn_cli.runs.run_folder import RunFolder
from smn_cli.runs.run_result import read_learned
from tests.conftest import CONVNET, Outcome

pytestmark = pytest.mark.drawn
Adapt = Callable[..., Outcome]


@pytest.fixture
def adapt(
    run_cli: Callable[..., Outcome], weights_file: Callable[[str], Path], image_folder: Path, tmp_path: Path
) -> Adapt:
    """A function that makes a small run in `tmp_path/run`."""

    def run(*words: object) -> Outcome:
        shape = ("--size", 32, "--teacher-size", 32, "--batch-size", 8, "--steps", 4, "--keep", "last")
        return run_cli("adapt", image_folder, "--arch", CONVNET, "--weights", weights_file(CONVNET), "--out",
                       tmp_path / "run", *shape, *words)  # fmt: skip

    return run


def test_full_fine_tuning_changes_the_weights_and_has_nothing_to_pack(
    adapt: Adapt, run_cli: Callable[..., Outcome], labeled_folder: Path, tmp_path: Path
) -> None:
    assert adapt("--train", "full", "--lr-scores", 0.01).code == 0
    learned = read_learned(RunFolder.open(tmp_path / "run"))
    own = dict(load_backbone(CONVNET, _weights(tmp_path)).model.named_parameters())
    assert any(not torch.equal(weight, own[name]) for name, weight in learned.weights.items())
    refused = run_cli("pack", tmp_path / "run", "--out", tmp_path / "a.safetensors")
    assert (refused.code, "there is no mask to pack" in refused.err) == (2, True)
    scored = run_cli("eval", labeled_folder, "--run", tmp_path / "run", "--knn", "--json", "-")
    assert scored.code == 0, scored.err
    assert json.loads(scored.out)["verdict"] in ("better", "same", "worse")


def test_the_head_baseline_is_the_base(adapt: Adapt, tmp_path: Path) -> None:
    assert adapt("--recipe", "swav", "--train", "head").code == 0
    learned = read_learned(RunFolder.open(tmp_path / "run"))
    assert all(bool(mask.all()) for mask in learned.masks.values())
    assert learned.norm_stats == {}


def test_the_statistics_baseline_carries_statistics_over_the_identity_mask(
    adapt: Adapt, run_cli: Callable[..., Outcome], tmp_path: Path
) -> None:
    assert adapt("--train", "norm").code == 0
    packed = run_cli("pack", tmp_path / "run", "--out", tmp_path / "a.safetensors", "--json", "-")
    assert packed.code == 0, packed.err
    sizes = json.loads(packed.out)
    assert sizes["density"] == 1.0
    assert sizes["norm_stats_bytes"] > 0
    inspected = json.loads(run_cli("inspect", tmp_path / "a.safetensors", "--json", "-").out)
    assert all(name.endswith(("running_mean", "running_var")) for name in inspected["norm_stats"])


@pytest.mark.slow
def test_labels_given_with_val_are_scored_at_every_evaluation(
    adapt: Adapt, labeled_folder: Path, tmp_path: Path
) -> None:
    assert adapt("--val", labeled_folder).code == 0
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    evaluations = [line["evaluation"] for line in lines if "evaluation" in line]
    assert evaluations
    for evaluation in evaluations:
        assert 0 <= evaluation["knn.top1"] <= 1
        assert evaluation["base knn.top1"] == evaluations[0]["base knn.top1"]
        gains = [evaluation[name] - evaluation[f"base {name}"] for name in evaluation if f"base {name}" in evaluation]
        assert evaluation["gain"]["value"] == pytest.approx(sum(gains) / len(gains))


def test_a_missing_val_folder_stops_before_anything_is_made(adapt: Adapt, tmp_path: Path) -> None:
    refused = adapt("--val", tmp_path / "nowhere")
    assert refused.code == 5
    assert not (tmp_path / "run").exists()


def _weights(tmp_path: Path) -> Path:
    return Path(json.loads((tmp_path / "run" / "config.json").read_text())["weights"])
