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
from tests.conftest import CONVNET, RESNET, VIT, Outcome

RECIPES = {
    "frozen statistics": ("--recipe", "default", "--size", "32", "--teacher-size", "48", "--lr-scores", "0.3"),
    "adapted statistics": ("--recipe", "paper", "--size", "32", "--local-views", "1", "--lr-scores", "5000"),
}

PLAIN_TIMM = """
import sys, timm, torch
from safetensors.torch import load_file, save_file
arch, checkpoint, images, out = sys.argv[1:]
torch.set_num_threads(2)
model = timm.create_model(arch, checkpoint_path=checkpoint).eval()
with torch.inference_mode():
    features = model.forward_head(model.forward_features(load_file(images)["images"]), pre_logits=True)
save_file({"features": features.contiguous()}, out)
"""


@pytest.mark.slow
@pytest.mark.parametrize("statistics", list(RECIPES))
@pytest.mark.parametrize("arch", [RESNET, CONVNET, VIT])
def test_plain_timm_in_another_process_computes_the_live_networks_bits(
    run_cli: Callable[..., Outcome],
    weights_file: Callable[[str], Path],
    image_folder: Path,
    tmp_path: Path,
    arch: str,
    statistics: str,
) -> None:
    weights, run, adapter, checkpoint = (
        weights_file(arch),
        tmp_path / "run",
        tmp_path / "a.st",
        tmp_path / "c.safetensors",
    )
    words = ("--arch", arch, "--weights", weights, "--out", run, "--batch-size", 8, "--steps", 6, "--keep", "last")
    assert run_cli("adapt", image_folder, *words, *RECIPES[statistics]).code == 0
    assert run_cli("pack", run, "--out", adapter).code == 0
    applied = run_cli("apply", adapter, "--weights", weights, "--out", checkpoint, "--json", "-")
    assert applied.code == 0, applied.err
    live = _live_features(arch, weights, run, tmp_path / "images.safetensors")
    script = [sys.executable, "-c", PLAIN_TIMM, arch, checkpoint, tmp_path / "images.safetensors", tmp_path / "out.st"]
    subprocess.run([str(word) for word in script], check=True)
    rebuilt = load_file(tmp_path / "out.st")["features"]
    assert torch.equal(rebuilt, live)
    assert json.loads(applied.out)["digest"] == load_adapter(adapter).header.adapted_digest
    # and the mask did something
    with torch.inference_mode():
        base = load_backbone(arch, weights).model(load_file(tmp_path / "images.safetensors")["images"])
    assert not torch.equal(base, live)


def _live_features(arch: str, weights: Path, run: Path, images_path: Path) -> torch.Tensor:
    """Features from the run's own checkpoint, without going through any adapter code."""
    learned = read_learned(RunFolder.open(run))
    model = load_backbone(arch, weights).model
    parameters = dict(model.named_parameters())
    tensors = {name: effective_weight(parameters[name], mask) for name, mask in learned.masks.items()}
    images = torch.rand(4, 3, 160, 160, generator=torch.Generator().manual_seed(0))
    save_file({"images": images}, images_path)
    with torch.inference_mode():
        return run_backbone(model, images, {**tensors, **learned.norm_stats})
