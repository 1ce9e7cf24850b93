"""A workshop per backbone family, and one thread: networks this small lose time with more."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.conftest import CONVNET
from tests.small_runs import Workshop


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def workshop(weights_file: Callable[[str], Path], image_folder: Path, tmp_path: Path) -> Callable[..., Workshop]:
    """A function from a timm name to a workshop in `tmp_path`."""

    def make(arch: str = CONVNET) -> Workshop:
        return Workshop(weights_file(arch), arch, image_folder, tmp_path)

    return make
