"""Folders that `smn apply` wrote."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from smn_cli.adapters.adapter import Adapter, load_adapter, make_adapter
from smn_cli.backbones.loading import load_backbone
from tests.adapters.forging import random_masks

NATIVE = 160


@dataclass(frozen=True)
class Written:
    """A folder, the adapter file it was made from, the base's file, and the size its images have."""

    arch: str
    size: int
    weights: Path
    file: Path
    path: Path

    def live(self) -> nn.Module:
        """The network with its 1000 classes, masked in place."""
        model: nn.Module = timm.create_model(self.arch, checkpoint_path=str(self.weights))
        return load_adapter(self.file).apply(model).eval()

    def load(self, **options: Any) -> nn.Module:
        """What timm makes of the folder."""
        model: nn.Module = timm.create_model(f"local-dir:{self.path}", pretrained=True, **options)
        return model.eval()

    def images(self) -> Tensor:
        return torch.rand(2, 3, self.size, self.size, generator=torch.Generator().manual_seed(3))


def adapter_over(arch: str, weights: Path, size: int) -> Adapter:
    backbone = load_backbone(arch, weights)
    base = backbone.model.state_dict()
    parameters = dict(backbone.model.named_parameters())
    masks = random_masks({name: base[name] for name in parameters}, density=0.8)
    told = {"mean": list(backbone.mean), "std": list(backbone.std), "interpolation": "bilinear", "size": size}
    return make_adapter(base, masks, arch=arch, preprocessing=told, codec="bits")


@pytest.fixture(scope="module")
def written(
    weights_file: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, int], Written]:
    """A function from a timm name and a size to a folder that `smn apply` wrote; the tests only read it."""
    done: dict[tuple[str, int], Written] = {}

    def make(arch: str, size: int) -> Written:
        from tests.commands.conftest import quietly

        if (arch, size) not in done:
            root, weights = tmp_path_factory.mktemp(arch), weights_file(arch)
            adapter_over(arch, weights, size).save(root / "a.safetensors")
            quietly("apply", root / "a.safetensors", "--weights", weights, "--out", f"{root / 'net'}/")
            done[arch, size] = Written(arch, size, weights, root / "a.safetensors", root / "net")
        return done[arch, size]

    return make
