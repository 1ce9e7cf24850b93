"""Invariant 3: what plain timm loads in another process is the live adapted network, bit for bit."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from smn_cli.api import load_adapter
from smn_cli.backbones.loading import load_backbone
from smn_cli.masking.backbone import run_backbone
from smn_cli.masking.binarize import effective_weight
from smn_cli.runs.run_folder import RunFolder
from smn_cli.runs.run_result import read_learned
from tests.commands.conftest import quietly
from tests.conftest import CONVNET, RESNET, VIT, write_images

RECIPES = {
    "frozen statistics": ("--recipe", "default", "--size", "32", "--teacher-size", "48", "--lr-scores", "0.3"),
    "adapted statistics": ("--recipe", "paper", "--size", "32", "--local-views", "1", "--lr-scores", "5000"),
}

PLAIN_TIMM = """
import sys, timm, torch
from safetensors.torch import load_file, save_file
images, *jobs = sys.argv[1:]
torch.set_num_threads(2)
for arch, folder in zip(jobs[::2], jobs[1::2]):
    model = timm.create_model(arch, checkpoint_path=f"{folder}/c.safetensors").eval()
    with torch.inference_mode():
        features = model.forward_head(model.forward_features(load_file(images)["images"]), pre_logits=True)
    save_file({"features": features.contiguous()}, f"{folder}/out.st")
"""
ARCHS = (RESNET, CONVNET, VIT)


@pytest.fixture(scope="module")
def folders(
    weights_file: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[tuple[str, str], Path]:
    """Of each network and recipe: run, adapter, checkpoint, and what plain timm computes of it in another process."""
    root = tmp_path_factory.mktemp("exactness")
    write_images(root / "images", 24)
    save_file({"images": _images()}, root / "images.safetensors")
    made = {(arch, name): root / f"{arch} {name}" for arch in ARCHS for name in RECIPES}
    for (arch, name), folder in made.items():
        run, adapter, weights = folder / "run", folder / "a.st", ("--weights", weights_file(arch))
        words = ("--arch", arch, *weights, "--out", run, "--batch-size", 8, "--steps", 6, "--keep", "last")
        quietly("adapt", root / "images", *words, *RECIPES[name])
        quietly("pack", run, "--out", adapter)
        quietly("apply", adapter, *weights, "--out", folder / "c.safetensors", "--json", folder / "applied.json")
    jobs = [word for (arch, _), folder in made.items() for word in (arch, folder)]
    script = [sys.executable, "-c", PLAIN_TIMM, root / "images.safetensors", *jobs]
    subprocess.run([str(word) for word in script], check=True)
    return made


@pytest.mark.slow
@pytest.mark.parametrize("statistics", list(RECIPES))
@pytest.mark.parametrize("arch", ARCHS)
def test_plain_timm_in_another_process_computes_the_live_networks_bits(
    folders: dict[tuple[str, str], Path], weights_file: Callable[[str], Path], arch: str, statistics: str
) -> None:
    folder = folders[arch, statistics]
    live = _live_features(arch, weights_file(arch), folder / "run")
    assert torch.equal(load_file(folder / "out.st")["features"], live)
    applied = json.loads((folder / "applied.json").read_text())
    assert applied["digest"] == load_adapter(folder / "a.st").header.adapted_digest
    # and the mask did something
    with torch.inference_mode():
        base = load_backbone(arch, weights_file(arch)).model(_images())
    assert not torch.equal(base, live)


def _images() -> torch.Tensor:
    return torch.rand(4, 3, 160, 160, generator=torch.Generator().manual_seed(0))


def _live_features(arch: str, weights: Path, run: Path) -> torch.Tensor:
    """Features from the run's own checkpoint, without going through any adapter code."""
    learned = read_learned(RunFolder.open(run))
    model = load_backbone(arch, weights).model
    parameters = dict(model.named_parameters())
    tensors = {name: effective_weight(parameters[name], mask) for name, mask in learned.masks.items()}
    with torch.inference_mode():
        return run_backbone(model, _images(), {**tensors, **learned.norm_stats})
