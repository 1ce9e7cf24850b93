"""One finished run, its adapter and its base for all tests of the commands; they read it and write elsewhere."""

import contextlib
import io
from dataclasses import dataclass
from pathlib import Path

import pytest
from safetensors.torch import save_file

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
