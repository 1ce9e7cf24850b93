"""How much of the package one has to know to follow a run: the modules that its start and one step call into.

    python benchmarks/modules_entered.py

A profile hook notes the file of every function of smn that is entered. The run is a small one of the default recipe.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image

import smn_cli
from smn_cli.backbones.loading import wrap_backbone
from smn_cli.config.options import AdaptOptions
from smn_cli.data.images.validate import ImageSet
from smn_cli.training.run_context import RunRequest
from smn_cli.training.session import Session

ROOT = Path(smn_cli.__file__).parent


def main() -> None:
    torch.manual_seed(0)
    with TemporaryDirectory() as folder:
        backbone = wrap_backbone(timm.create_model("test_resnet"))
        images = ImageSet(make_images(Path(folder, "images")))
        settings = AdaptOptions(batch_size=8, steps=1, size=32)
        started, session = entered(lambda: Session.start(RunRequest(Path(folder, "run"), images, settings), backbone))
        stepped, _ = entered(lambda: next(session.steps()))
    for what, modules in (("start", started), ("one step", stepped), ("both", started | stepped)):
        packages = {name.split("/")[0] for name in modules if "/" in name}
        print(f"{what}: {len(modules)} modules in {len(packages)} packages")
    print("\n".join(sorted(started | stepped)))


def entered(work: Callable[[], Any]) -> tuple[set[str], Any]:
    """Modules of smn that some work enters, and what it returns."""
    modules: set[str] = set()

    def note(frame: FrameType, event: str, _argument: object) -> None:
        path = Path(frame.f_code.co_filename)
        if event == "call" and path.is_relative_to(ROOT) and frame.f_code.co_name != "<module>":
            modules.add(str(path.relative_to(ROOT)))

    sys.setprofile(note)
    try:
        result = work()
    finally:
        sys.setprofile(None)
    return modules, result


def make_images(folder: Path) -> list[Path]:
    """Eighty images of one colour each with some noise."""
    folder.mkdir()
    generator = np.random.default_rng(0)
    paths = []
    for number in range(80):
        pixels = generator.integers(0, 60, (48, 48, 3), dtype=np.uint8) + generator.integers(0, 190, 3, dtype=np.uint8)
        paths.append(folder / f"{number:03d}.png")
        Image.fromarray(pixels).save(paths[-1])
    return paths


if __name__ == "__main__":
    main()
