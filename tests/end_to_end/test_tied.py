"""CoaT shares its position convolutions between blocks: the one family of timm that ties tensors."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch

import smn_cli
from smn_cli.backbones.loading import wrap_backbone
from smn_cli.masking.backbone import run_backbone
from smn_cli.masking.binarize import effective_weight
from smn_cli.masking.ties import tied_names
from smn_cli.rebuild import rebuild, save_checkpoint
from smn_cli.runs.run_folder import RunFolder
from smn_cli.runs.run_result import read_learned
from smn_cli.training.warm_start import read_start_masks
from tests.conftest import random_weights
from tests.small_runs import digests, equal

pytestmark = pytest.mark.slow

SIZE = 64


@pytest.mark.parametrize("arch", ["coat_tiny", "coat_lite_tiny"])
def test_plain_timm_computes_the_bits_of_a_live_network_that_shares_weights(
    arch: str, image_folder: Path, tmp_path: Path
) -> None:
    weights = random_weights(arch)

    def build() -> torch.nn.Module:
        model: torch.nn.Module = timm.create_model(arch, img_size=SIZE)
        model.load_state_dict(weights)
        return model

    options: dict[str, Any] = {
        "recipe": "paper",
        "size": SIZE,
        "teacher_size": SIZE,
        "local_views": 0,
        "batch_size": 4,
        "steps": 2,
        "keep": "last",
    }
    adapter = smn_cli.adapt(
        model := build(), image_folder, out=tmp_path / "run", prototypes=8, queue=8, lr_scores=5000.0, **options
    )
    base = wrap_backbone(build())
    left = digests(model)
    assert {name: left[name] for name in base.model.state_dict()} == digests(base.model)  # the shared ones, too
    learned = read_learned(RunFolder.open(tmp_path / "run"))
    shared = tied_names(base.model).keys() & learned.masks.keys()
    assert any(not learned.masks[name].all() for name in shared)
    listed = {entry.name for entry in adapter.header.masks}
    assert {alias for name in shared for alias in tied_names(base.model)[name]} <= listed
    adapter.save(tmp_path / "a.safetensors")
    assert equal(read_start_masks(tmp_path / "a.safetensors", base), learned.masks)

    save_checkpoint(rebuild(adapter, base), tmp_path / "c.safetensors")
    loaded = timm.create_model(arch, img_size=SIZE, checkpoint_path=str(tmp_path / "c.safetensors")).eval()
    images = torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    own = dict(base.model.named_parameters())
    with torch.inference_mode():
        live = run_backbone(base.model, images, {n: effective_weight(own[n], m) for n, m in learned.masks.items()})
        features = loaded.forward_head(loaded.forward_features(images), pre_logits=True)
        assert torch.equal(features, live)
        assert torch.equal(adapter.apply(base.model)(images), live)
        adapter.remove(base.model)
        assert not torch.equal(base.model(images), live)
