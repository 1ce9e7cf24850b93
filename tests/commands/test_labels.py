"""smn adapt --labels folders, and what the other commands do with the classifier that comes of it."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import smn_cli
from smn_cli.adapters.head import rounded_head
from smn_cli.backbones.loading import load_backbone
from smn_cli.masking.backbone import run_backbone
from smn_cli.masking.binarize import effective_weight
from smn_cli.runs.run_folder import RunFolder
from smn_cli.runs.run_result import read_learned
from tests.commands.conftest import Road, quietly
from tests.conftest import CONVNET, RESNET, VIT, Outcome, write_images

pytestmark = pytest.mark.slow

Cli = Callable[..., Outcome]
WORDS = "--labels folders --size 32 --teacher-size 32 --batch-size 8 --steps 4 --lr-scores 0.2 --keep last"
SHORT = WORDS.split()

PLAIN_TIMM = """
import sys, timm, torch
from safetensors.torch import load_file, save_file
images, *jobs = sys.argv[1:]
torch.set_num_threads(2)
for arch, folder in zip(jobs[::2], jobs[1::2]):
    model = timm.create_model(arch, num_classes=3, checkpoint_path=f"{folder}/c.safetensors").eval()
    with torch.inference_mode():
        logits = model(load_file(images)["images"])
    save_file({"logits": logits.contiguous()}, f"{folder}/logits.st")
"""


@dataclass(frozen=True)
class Learned:
    """A finished run with labels, what was packed of it and the checkpoint that was made of that."""

    weights: Path
    run: Path
    adapter: Path
    checkpoint: Path
    packed: dict[str, Any]
    applied: dict[str, Any]


def _learn(arch: str, weights: Path, images: Path, folder: Path) -> Learned:
    run, adapter, checkpoint = folder / "run", folder / "a.safetensors", folder / "c.safetensors"
    words = ("--weights", weights, "--out")
    quietly("adapt", images, "--arch", arch, *words, run, *SHORT)
    quietly("pack", run, "--out", adapter, "--json", folder / "packed.json")
    quietly("apply", adapter, *words, checkpoint, "--json", folder / "applied.json")
    told = [json.loads((folder / f"{name}.json").read_text()) for name in ("packed", "applied")]
    return Learned(weights, run, adapter, checkpoint, *told)


@pytest.fixture(scope="module")
def learned(
    weights_file: Callable[[str], Path], road: Road, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Learned]:
    """One for each kind of network; the tests read them and write elsewhere."""
    archs = (RESNET, CONVNET, VIT)
    return {arch: _learn(arch, weights_file(arch), road.labeled, tmp_path_factory.mktemp(arch)) for arch in archs}


@pytest.fixture(scope="module")
def plain_logits(learned: dict[str, Learned], tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """What plain timm, in another process, computes of the checkpoints."""
    file = tmp_path_factory.mktemp("images") / "i.st"
    save_file({"images": _images()}, file)
    jobs = [word for arch, made in learned.items() for word in (arch, made.checkpoint.parent)]
    subprocess.run([str(word) for word in (sys.executable, "-c", PLAIN_TIMM, file, *jobs)], check=True)
    return {arch: load_file(made.checkpoint.parent / "logits.st")["logits"] for arch, made in learned.items()}


@pytest.mark.parametrize("arch", [RESNET, CONVNET, VIT])
def test_plain_timm_in_another_process_gives_the_live_networks_logits_bit_for_bit(
    learned: dict[str, Learned], plain_logits: dict[str, torch.Tensor], arch: str
) -> None:
    made = learned[arch]
    num_features = load_backbone(arch, made.weights).num_features
    assert made.packed["head_bytes"] == 3 * (num_features + 8)
    assert (made.applied["num_classes"], made.applied["classes"]) == (3, ["blue", "green", "red"])
    with safe_open(made.checkpoint, "pt") as file:
        assert json.loads(file.metadata()["classes"]) == ["blue", "green", "red"]
    assert torch.equal(plain_logits[arch], _live_logits(arch, made.weights, made.run))


def _images() -> torch.Tensor:
    return torch.rand(4, 3, 160, 160, generator=torch.Generator().manual_seed(0))


def _live_logits(arch: str, weights: Path, run: Path) -> torch.Tensor:
    """Logits from the run's own checkpoint, without going through any adapter."""
    learned = read_learned(RunFolder.open(run))
    backbone = load_backbone(arch, weights)
    parameters = dict(backbone.model.named_parameters())
    tensors = {name: effective_weight(parameters[name], mask) for name, mask in learned.masks.items()}
    assert any(not mask.all() for mask in learned.masks.values())
    assert learned.classifier is not None
    head = rounded_head(learned.classifier, name="x", classes=("blue", "green", "red")).classifier()
    with torch.inference_mode():
        return head.logits(run_backbone(backbone.model, _images(), tensors))


@pytest.fixture
def adapter(learned: dict[str, Learned]) -> Path:
    """An adapter with a classifier of three colours."""
    return learned[CONVNET].adapter


def test_eval_scores_the_classifier_and_gates_hold_it(
    run_cli: Cli, learned: dict[str, Learned], labeled_folder: Path
) -> None:
    made = learned[CONVNET]
    words = ("eval", labeled_folder, "--adapter", made.adapter, "--weights", made.weights, "--knn", "--json", "-")
    scored = run_cli(*words, "--fail-under", "classifier.top1=0.01")
    assert scored.code == 0, scored.err
    told = json.loads(scored.out)
    assert told["adapted"]["classifier"]["classes"] == 3
    assert told["gates"][0]["value"] == told["adapted"]["classifier"]["top1"]
    assert "classifier" not in told["base"]
    assert "classifier.top1" not in told["gain"]
    assert all(each.keys() == {"name", "images", "adapted"} for each in told["details"]["classifier.top1"]["classes"])
    of_run = run_cli("eval", labeled_folder, "--run", made.run, "--json", "-")
    assert json.loads(of_run.out)["adapted"] == told["adapted"]
    assert run_cli(*words, "--fail-under", "classifier.top1=1.01").code == 3
    refused = run_cli(*words, "--min-gain", "classifier.top1=0")  # the base has none to gain upon
    assert (refused.code, "classifier.top1 has no gain here" in refused.err) == (2, True)


def test_of_several_adapters_each_is_scored_by_the_classifier_that_it_carries(
    run_cli: Cli, learned: dict[str, Learned], road: Road
) -> None:
    made = learned[RESNET]
    words = ("eval", road.labeled, "--weights", made.weights, "--adapter", made.adapter)
    alone = json.loads(run_cli(*words, "--json", "-").out)
    both = run_cli(*words, "--adapter", road.adapter, "--label-fraction", "0.5", "--json", "-")
    assert both.code == 0, both.err
    told = json.loads(both.out)
    first, second = told["adapters"]
    assert first["classifier"] == told["adapted"]["classifier"] == alone["adapted"]["classifier"]
    assert "classifier" not in second
    swapped = run_cli("eval", road.labeled, "--adapter", road.adapter, *words[2:])
    assert swapped.code == 0, swapped.err
    assert f"{first['classifier']['top1']:.4f}" in swapped.out


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


def test_a_cascade_does_not_go_on_from_labels(run_cli: Cli, learned: dict[str, Learned], tmp_path: Path) -> None:
    made = learned[CONVNET]
    refused = run_cli("cascade", "--run", made.run, "--weights", made.weights, "--out", tmp_path / "c")
    assert (refused.code, "did not learn a mask without labels" in refused.err) == (2, True)
    assert not (tmp_path / "c").exists()


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
