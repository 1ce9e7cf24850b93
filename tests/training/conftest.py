"""A second model, for runs that another network teaches or judges."""

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from tests.conftest import VIT


@pytest.fixture
def second(tmp_path: Path) -> Path:
    """Weights of a ViT that is as wide as nothing else here."""
    torch.manual_seed(5)
    path = tmp_path / "second.safetensors"
    save_file(timm.create_model(VIT).state_dict(), path)
    return path
