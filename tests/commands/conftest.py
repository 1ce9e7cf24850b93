"""One finished run, its adapter and its base for all tests of the commands; they read it and write elsewhere."""

import contextlib
import io
import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from smn_cli.adapters.adapter import load_adapter, make_adapter
from tests.conftest import RESNET, random_weights, write_images
from tests.declared_json import check_written_json

SHORT = "--recipe paper --size 32 --batch-size 8 --local-views 1 --prototypes 8 --queue 16 --steps 3 --lr-scores 500"
"""Three steps, with a learning rate at which some scores already fall to zero."""


@dataclass(frozen=True)
class Road:
    """Files along the main road."""

    images: Path
    labeled: Path
    weights: Path
    other_weights: Path
    run: Path
    adapter: Path


def quietly(*words: object) -> None:
    """Run a command that has to work."""
    from smn_cli.cli import main

    talk = io.StringIO()
    with contextlib.redirect_stdout(talk), contextlib.redirect_stderr(talk), pytest.raises(SystemExit) as exit_info:
        main([str(word) for word in words])
    assert exit_info.value.code == 0, talk.getvalue()
    check_written_json(words)


@pytest.fixture(scope="session")
def road(tmp_path_factory: pytest.TempPathFactory) -> Road:
    """Images, weights, a run over them and its adapter."""
    root = tmp_path_factory.mktemp("road")
    road = Road(
        *(root / name for name in ("images", "labeled", "w.safetensors", "x.safetensors", "run", "a.safetensors"))
    )
    write_images(road.images, 24)
    for label, name in enumerate(("red", "green", "blue")):
        write_images(road.labeled / "train" / name, 12, seed=label, colour=label)
        write_images(road.labeled / "test" / name, 6, seed=10 + label, colour=label)
    save_file(random_weights(RESNET), road.weights)
    other = random_weights(RESNET)
    other["layer2.0.conv1.weight"][0, 0, 0, 0] += 1
    save_file(other, road.other_weights)
    quietly("adapt", road.images, "--arch", RESNET, "--weights", road.weights, "--out", road.run, *SHORT.split())
    quietly("pack", road.run, "--out", road.adapter)
    return road


def save_random_adapter(road: Road, path: Path, *, weights: Path, size: int = 32) -> None:
    """An adapter with a mask of chance, which no run of the road has learned."""
    base = load_file(weights)
    names = [entry.name for entry in load_adapter(road.adapter).header.masks]
    masks = {name: torch.rand(base[name].shape, generator=torch.Generator().manual_seed(1)) > 0.3 for name in names}
    state = {name: tensor for name, tensor in base.items() if not name.startswith("fc.")}
    preprocessing = {**load_adapter(road.adapter).header.preprocessing, "size": size}
    make_adapter(state, masks, arch=RESNET, preprocessing=preprocessing, codec="bits").save(path)


@pytest.fixture
def other_adapter(road: Road, tmp_path: Path) -> Path:
    """An adapter over the road's base with another mask."""
    path = tmp_path / "b.safetensors"
    save_random_adapter(road, path, weights=road.weights)
    return path


@pytest.fixture(scope="module")
def cascade_file(road: Road, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cascade of two experts over the road's run."""
    out = tmp_path_factory.mktemp("cascades") / "made"
    words = ("--experts", 2, "--steps", 2, "--device", "cpu", "--workers", 0)
    quietly("cascade", "--run", road.run, "--out", out, *words, "--json", out.with_suffix(".json"))
    assert json.loads(out.with_suffix(".json").read_text())["schema"] == "smn.cascade/1"
    return out / "cascade.safetensors"
