"""smn adapt --labels folders, and what the other commands do with the classifier that comes of it."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import smn_cli
from smn_cli.backbones.loading import load_backbone
from smn_cli.masking.backbone import run_backbone
from smn_cli.masking.binarize import effective_weight
from smn_cli.training.classifying import rounded
from smn_cli.training.record import read_learned
from smn_cli.training.run_folder import RunFolder
from tests.conftest import CONVNET, RESNET, VIT, Outcome, write_images

Cli = Callable[..., Outcome]
WORDS = "--labels folders --size 32 --teacher-size 32 --batch-size 8 --steps 4 --lr-scores 0.2 --keep last"
SHORT = WORDS.split()

PLAIN_TIMM = """
import sys, timm, torch
from safetensors.torch import load_file, save_file
arch, checkpoint, images, out = sys.argv[1:]
torch.set_num_threads(2)
model = timm.create_model(arch, num_classes=3, checkpoint_path=checkpoint).eval()
with torch.inference_mode():
    logits = model(load_file(images)["images"])
save_file({"logits": logits.contiguous()}, out)
"""


@pytest.mark.parametrize("arch", [RESNET, CONVNET, VIT])
def test_plain_timm_in_another_process_gives_the_live_networks_logits_bit_for_bit(
    run_cli: Cli, weights_file: Callable[[str], Path], labeled_folder: Path, tmp_path: Path, arch: str
) -> None:
    weights, run = weights_file(arch), tmp_path / "run"
    adapter, checkpoint, images = tmp_path / "a.st", tmp_path / "c.safetensors", tmp_path / "i.st"
    words = ("--arch", arch, "--weights", weights, "--out", run, *SHORT)
    assert run_cli("adapt", labeled_folder, *words).code == 0
    packed = run_cli("pack", run, "--out", adapter, "--json", "-")
    num_features = load_backbone(arch, weights).num_features
    assert json.loads(packed.out)["head_bytes"] == 3 * (num_features + 8)
    applied = run_cli("apply", adapter, "--weights", weights, "--out", checkpoint, "--json", "-")
    assert applied.code == 0, applied.err
    told = json.loads(applied.out)
    assert (told["num_classes"], told["classes"]) == (3, ["blue", "green", "red"])
    with safe_open(checkpoint, "pt") as file:
        assert json.loads(file.metadata()["classes"]) == ["blue", "green", "red"]
    live = _live_logits(arch, weights, run, images)
    script = [sys.executable, "-c", PLAIN_TIMM, arch, checkpoint, images, tmp_path / "out.st"]
    subprocess.run([str(word) for word in script], check=True)
    assert torch.equal(load_file(tmp_path / "out.st")["logits"], live)


def _live_logits(arch: str, weights: Path, run: Path, images_path: Path) -> torch.Tensor:
    """Logits from the run's own checkpoint, without going through any adapter."""
    learned = read_learned(RunFolder.open(run))
    backbone = load_backbone(arch, weights)
    parameters = dict(backbone.model.named_parameters())
    tensors = {name: effective_weight(parameters[name], mask) for name, mask in learned.masks.items()}
    assert any(not mask.all() for mask in learned.masks.values())
    assert learned.classifier is not None
    head = rounded(learned.classifier, name="x", classes=("blue", "green", "red")).classifier()
    images = torch.rand(4, 3, 160, 160, generator=torch.Generator().manual_seed(0))
    save_file({"images": images}, images_path)
    with torch.inference_mode():
        return head.logits(run_backbone(backbone.model, images, tensors))


@pytest.fixture
def adapter(run_cli: Cli, weights_file: Callable[[str], Path], labeled_folder: Path, tmp_path: Path) -> Path:
    """An adapter with a classifier of three colours."""
    words = ("--arch", CONVNET, "--weights", weights_file(CONVNET), "--out", tmp_path / "run", *SHORT)
    done = run_cli("adapt", labeled_folder, *words)
    assert done.code == 0, done.err
    assert run_cli("pack", tmp_path / "run", "--out", tmp_path / "a.safetensors").code == 0
    return tmp_path / "a.safetensors"


def test_eval_scores_the_classifier_and_gates_hold_it(
    run_cli: Cli, adapter: Path, weights_file: Callable[[str], Path], labeled_folder: Path, tmp_path: Path
) -> None:
    weights = ("--weights", weights_file(CONVNET))
    words = ("eval", labeled_folder, "--adapter", adapter, *weights, "--knn", "--json", "-")
    scored = run_cli(*words, "--fail-under", "classifier.top1=0.01")
    assert scored.code == 0, scored.err
    told = json.loads(scored.out)
    assert told["adapted"]["classifier"]["classes"] == 3
    assert told["gates"][0]["value"] == told["adapted"]["classifier"]["top1"]
    assert "classifier" not in told["base"]
    assert "classifier.top1" not in told["gain"]
    of_run = run_cli("eval", labeled_folder, "--run", tmp_path / "run", "--json", "-")
    assert json.loads(of_run.out)["adapted"] == told["adapted"]
    assert run_cli(*words, "--fail-under", "classifier.top1=1.01").code == 3
    assert run_cli(*words, "--min-gain", "classifier.top1=0").code == 3  # the base has none to gain upon


def test_the_full_baseline_has_a_classifier_too(
    run_cli: Cli, weights_file: Callable[[str], Path], labeled_folder: Path, tmp_path: Path
) -> None:
    words = ("--arch", CONVNET, "--weights", weights_file(CONVNET), "--out", tmp_path / "run", *SHORT)
    assert run_cli("adapt", labeled_folder, *words, "--train", "full", "--lr-scores", "1e-4").code == 0
    scored = run_cli("eval", labeled_folder, "--run", tmp_path / "run", "--json", "-")
    assert json.loads(scored.out)["adapted"]["classifier"]["classes"] == 3


def test_inspect_names_the_classes_and_weighs_the_classifier(run_cli: Cli, adapter: Path) -> None:
    told = run_cli("inspect", adapter, "--json", "-")
    content = json.loads(told.out)
    assert content["classes"] == ["blue", "green", "red"]
    assert content["bytes"]["head"] > 0
    parts = {name: count for name, count in content["bytes"].items() if name != "file"}
    assert sum(parts.values()) == content["bytes"]["file"] == adapter.stat().st_size
    assert "carries a classifier, classifier, of 3 classes: blue, green, red" in run_cli("inspect", adapter).out


def test_merge_leaves_classifiers_out_and_says_so(
    run_cli: Cli, adapter: Path, weights_file: Callable[[str], Path], tmp_path: Path
) -> None:
    out = tmp_path / "m.safetensors"
    merged = run_cli("merge", adapter, adapter, "--weights", weights_file(CONVNET), "--out", out)
    assert merged.code == 0, merged.err
    assert "its classifier is left out" in merged.err
    assert json.loads(run_cli("inspect", out, "--json", "-").out)["classes"] == []


def test_dropping_the_classifier_drops_the_carried_one(
    run_cli: Cli, adapter: Path, weights_file: Callable[[str], Path], tmp_path: Path
) -> None:
    out = tmp_path / "c.safetensors"
    words = ("--weights", weights_file(CONVNET), "--out", out, "--drop-classifier", "--json", "-")
    told = json.loads(run_cli("apply", adapter, *words).out)
    assert (told["num_classes"], told["classes"]) == (0, [])
    assert not any(name.startswith("classifier") for name in load_file(out))


def test_plan_knows_labels(run_cli: Cli, weights_file: Callable[[str], Path], labeled_folder: Path) -> None:
    words = [word for word in SHORT if word not in ("--keep", "last")]
    told = run_cli("plan", labeled_folder, "--arch", CONVNET, "--weights", weights_file(CONVNET), *words, "--json", "-")
    assert told.code == 0, told.err
    assert json.loads(told.out)["plan"]["num_classes"] == 3


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("--recipe", "swav"), 2, "--labels with --recipe swav"),
        (("--label-fraction", "2"), 2, "--label-fraction is 2.0"),
    ],
)
def test_settings_that_do_not_go_together_stop_before_anything_is_made(
    run_cli: Cli, weights_file: Callable[[str], Path], labeled_folder: Path, tmp_path: Path,
    words: tuple[str, ...], code: int, message: str,
) -> None:  # fmt: skip
    asked = ("--arch", CONVNET, "--weights", weights_file(CONVNET), "--out", tmp_path / "run", *SHORT, *words)
    refused = run_cli("adapt", labeled_folder, *asked)
    assert (refused.code, message in refused.err) == (code, True)
    assert not (tmp_path / "run").exists()


def test_flat_folders_and_a_single_class_are_refused(
    run_cli: Cli, weights_file: Callable[[str], Path], image_folder: Path, tmp_path: Path
) -> None:
    words = ("--arch", CONVNET, "--weights", weights_file(CONVNET), "--out", tmp_path / "run", *SHORT)
    flat = run_cli("adapt", image_folder, *words)
    assert (flat.code, "has no class folders with images" in flat.err) == (5, True)
    write_images(tmp_path / "one" / "only", 3)
    single = run_cli("adapt", tmp_path / "one", *words)
    assert (single.code, "has only the class only" in single.err) == (5, True)
    assert not (tmp_path / "run").exists()


def test_python_learns_from_labels_too(weights_file: Callable[[str], Path], labeled_folder: Path) -> None:
    model = timm.create_model(CONVNET, checkpoint_path=str(weights_file(CONVNET)))
    learned = smn_cli.adapt(
        model, labeled_folder, labels="folders", steps=2, size=32, teacher_size=32, batch_size=8, keep="last"
    )
    assert learned.head is not None
    assert learned.head.classes == ("blue", "green", "red")
    other = timm.create_model(CONVNET, checkpoint_path=str(weights_file(CONVNET)))
    other.reset_classifier(3)
    learned.apply(other)
    assert torch.equal(other.get_classifier().weight, learned.head.classifier().weight)
