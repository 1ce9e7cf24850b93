"""What all tests share: tiny timm networks with seeded weights, generated images, the command line in process."""

import os
import socket
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smn_cli.process import settle_process

settle_process()  # as the command does: threads that spin in two processes take turns at two cores

import numpy as np
import pytest
import torch
from markupsafe import escape
from PIL import Image
from safetensors.torch import save_file

from smn_cli.errors import GateError
from tests.declared_json import check_written_json

if TYPE_CHECKING:
    from tests.small_runs import Workshop

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["SMN_CACHE_HOME"] = os.devnull  # what no test's own folder replaces keeps nothing

_numbers = count()
CONVNET, VIT, RESNET = "test_efficientnet", "test_vit", "test_resnet"


@pytest.fixture(autouse=True)
def _deterministic(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Two threads, a seed, a cache of features of its own, and no way out to the network."""
    torch.set_num_threads(2)
    torch.manual_seed(0)
    monkeypatch.setattr("smn_cli.training.choose_precision.LEAST_S", float("inf"))  # a busy machine measures anything

    monkeypatch.setenv(
        "SMN_CACHE_HOME", str(tmp_path_factory.getbasetemp() / f"cache{next(_numbers)}")
    )  # never the user's own
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)  # tests that run in a job must not write its summary
    connect = socket.socket.connect

    def refuse(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6):
            raise OSError("tests have no network")
        connect(self, address)  # loader processes hand tensors over through local sockets

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture(scope="session", autouse=True)
def _draw() -> Iterator[Callable[..., str]]:
    """Empties the figures of a run's page, since to draw them takes longer than a short run; gives what draws them."""
    from smn_cli.reports import figures

    draw, empty = figures.page_svg, '<svg aria-label="{}"/>'
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "page_svg", lambda figure, alt: empty.format(escape(alt)))
        yield draw


@pytest.fixture(scope="module", autouse=True)
def _drawn_pages(request: pytest.FixtureRequest, _draw: Callable[..., str]) -> Iterator[None]:
    """Modules that are marked `drawn` have them whole; not so runs that many modules share."""
    with pytest.MonkeyPatch.context() as patch:
        if request.node.get_closest_marker("drawn") is not None:
            patch.setattr("smn_cli.reports.figures.page_svg", _draw)
        yield


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:  # the session's own fixtures run commands too
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


def random_weights(arch: str, seed: int = 0) -> dict[str, torch.Tensor]:
    """A full timm state dict of random weights whose normalisation statistics are not trivial."""
    import timm

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        state: dict[str, torch.Tensor] = timm.create_model(arch, pretrained=False).state_dict()
        for name, tensor in state.items():
            if name.endswith("running_mean"):
                tensor.uniform_(-0.1, 0.1)
            elif name.endswith("running_var"):
                tensor.uniform_(0.5, 1.5)
            elif tensor.ndim == 1 and not tensor.any() and name.endswith("weight"):
                tensor.fill_(0.5)  # timm starts residual branches at zero, where no mask could be seen
    return state


@pytest.fixture(scope="session")
def weights_file(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A function from a timm name to a safetensors file of seeded random weights, made once."""
    folder = tmp_path_factory.mktemp("weights")

    def make(arch: str) -> Path:
        path = folder / f"{arch}.safetensors"
        if not path.exists():
            save_file(random_weights(arch), path)
        return path

    return make


def meta_model(arch: str) -> torch.nn.Module:
    """A network without memory: names and shapes only."""
    import timm

    try:
        with torch.device("meta"):
            model: torch.nn.Module = timm.create_model(arch, num_classes=0)
    except NotImplementedError:  # torch 2.6 cannot count a RegNet's widths so
        model = timm.create_model(arch, num_classes=0)
    return model


class Trap:
    """Unpickling it would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.path,)


def write_images(folder: Path, num_images: int, *, size: int = 40, seed: int = 0, colour: int | None = None) -> None:
    """Noise with a coloured square, as PNG; `colour` (0, 1, 2) makes the square red, green or blue."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    for number in range(num_images):
        pixels = generator.integers(0, 120, (size, size, 3), dtype=np.uint8)
        top, left = generator.integers(0, size // 2, 2)
        channel = int(generator.integers(0, 3)) if colour is None else colour
        pixels[top : top + size // 2, left : left + size // 2, channel] = 255
        Image.fromarray(pixels).save(folder / f"{number:03d}.png")


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    """Twenty-four unlabeled images."""
    folder = tmp_path / "images"
    write_images(folder, 24)
    return folder


@pytest.fixture
def labeled_folder(tmp_path: Path) -> Path:
    """`train/` (3 x 12 images) and `test/` (3 x 6), told apart by colour."""
    folder = tmp_path / "labeled"
    for label, name in enumerate(("red", "green", "blue")):
        write_images(folder / "train" / name, 12, seed=label, colour=label)
        write_images(folder / "test" / name, 6, seed=10 + label, colour=label)
    return folder


@pytest.fixture
def workshop(weights_file: Callable[[str], Path], image_folder: Path, tmp_path: Path) -> Callable[..., "Workshop"]:
    """A function from a timm name to a workshop; one thread, since networks this small lose time with more."""
    from tests.small_runs import Workshop

    torch.set_num_threads(1)
    return lambda arch=CONVNET: Workshop(weights_file(arch), arch, image_folder, tmp_path)


@dataclass(frozen=True)
class Outcome:
    """What a command did: exit code, stdout, stderr."""

    code: int
    out: str
    err: str


@pytest.fixture
def run_cli(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run `smn` with the given words in this process; the JSON that it writes has to be as declared."""
    from smn_cli.cli import main

    def run(*words: object) -> Outcome:
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit_info:
            main([str(word) for word in words])
        captured = capsys.readouterr()
        outcome = Outcome(int(exit_info.value.code or 0), captured.out, captured.err)
        if outcome.code in (0, GateError.exit_code):
            check_written_json(words, outcome.out)
        return outcome

    return run


@dataclass(frozen=True)
class Cached:
    """A cache of the hub's client, filled as it fills it; without a connection it is all that there is."""

    folder: Path

    def put(self, repository: str, files: dict[str, bytes]) -> str:
        """Files of a repository's newest commit; returns its name."""
        commit = f"{zlib.crc32(repository.encode()):040x}"
        root = self.folder / f"models--{repository.replace('/', '--')}"
        for name, content in {f"snapshots/{commit}/{name}": content for name, content in files.items()}.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(content)
        (root / "refs").mkdir(exist_ok=True)
        (root / "refs" / "main").write_text(commit)
        return commit


@pytest.fixture
def hub_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Cached:
    """An empty one."""
    from huggingface_hub import constants

    folder = tmp_path_factory.mktemp("hub")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
    return Cached(folder)
