"""What is no file stands where a command takes one: a pipe, a socket, a terminal. Nobody waits for any."""

import inspect
import os
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import get_type_hints

import pytest

from smn_cli.cli import _COMMANDS
from tests.commands.conftest import SHORT, Road, quietly
from tests.conftest import RESNET, Outcome, write_images
from tests.datasets.downloads import DOWNLOADS

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names on this system"),
]
Run = Callable[..., Outcome]
KINDS = ("pipe", "socket", "terminal")
LIMIT_S = 60.0

ADAPT = f"--arch {RESNET} --weights {{weights}} --out {{out}} {SHORT}"
TAUGHT = f"--arch {RESNET} --weights {{weights}} --out {{out}} --size 32 --batch-size 8 --steps 1"
BASE = f"--arch {RESNET} --weights {{weights}} --size 32"
PLACES = {
    ("adapt", "images"): f"adapt {{odd}} {ADAPT}",
    ("adapt", "weights"): f"adapt {{images}} --arch {RESNET} --weights {{odd}} --out {{out}} {SHORT}",
    ("adapt", "out"): f"adapt {{images}} --arch {RESNET} --weights {{weights}} --out {{odd}} {SHORT}",
    ("adapt", "teacher"): f"adapt {{images}} {TAUGHT} --teacher {RESNET}={{odd}}",
    ("adapt", "witness"): f"adapt {{images}} {TAUGHT} --witness {RESNET}={{odd}}",
    ("adapt", "val"): f"adapt {{images}} {ADAPT} --val {{odd}}",
    ("adapt", "start"): f"adapt {{images}} {ADAPT} --start {{odd}}",
    ("plan", "images"): f"plan {{odd}} {BASE}",
    ("plan", "weights"): f"plan {{images}} --arch {RESNET} --weights {{odd}}",
    ("plan", "teacher"): f"plan {{images}} {BASE} --teacher {RESNET}={{odd}}",
    ("plan", "witness"): f"plan {{images}} {BASE} --witness {RESNET}={{odd}}",
    ("eval", "data"): "eval {odd} --adapter {adapter} --weights {weights}",
    ("eval", "adapter"): "eval {labeled} --adapter {odd} --weights {weights}",
    ("eval", "run"): "eval {labeled} --run {odd} --weights {weights}",
    ("eval", "weights"): "eval {labeled} --adapter {adapter} --weights {odd}",
    ("embed", "images"): "embed {odd} --adapter {adapter} --weights {weights} --out {out}.npy",
    ("embed", "adapter"): "embed {images} --adapter {odd} --weights {weights} --out {out}.npy",
    ("embed", "run"): "embed {images} --run {odd} --weights {weights} --out {out}.npy",
    ("embed", "weights"): "embed {images} --adapter {adapter} --weights {odd} --out {out}.npy",
    ("embed", "out"): "embed {images} --adapter {adapter} --weights {weights} --out {odd}",
    ("pack", "run"): "pack {odd} --out {out}",
    ("pack", "out"): "pack {run} --out {odd}",
    ("pack", "weights"): "pack {run} --out {out} --weights {odd}",
    ("apply", "file"): "apply {odd} --weights {weights} --out {out}.safetensors",
    ("apply", "weights"): "apply {adapter} --weights {odd} --out {out}.safetensors",
    ("apply", "out"): "apply {adapter} --weights {weights} --out {odd}",
    ("export", "files"): "export {odd} --weights {weights} --onnx {out}",
    ("export", "weights"): "export {adapter} --weights {odd} --onnx {out}",
    ("export", "onnx"): "export {adapter} --weights {weights} --onnx {odd}",
    ("inspect", "file"): "inspect {odd}",
    ("verify", "file"): "verify {odd} --weights {weights}",
    ("verify", "weights"): "verify {adapter} --weights {odd}",
    ("verify", "checkpoint"): "verify {adapter} --weights {weights} --checkpoint {odd}",
    ("diff", "one"): "diff {odd} {adapter}",
    ("diff", "other"): "diff {adapter} {odd}",
    ("diff", "weights"): "diff {adapter} {other} --weights {odd}",
    ("merge", "files"): "merge {adapter} {odd} --weights {weights} --out {out}",
    ("merge", "out"): "merge {adapter} {adapter} --weights {weights} --out {odd}",
    ("merge", "weights"): "merge {adapter} {adapter} --weights {odd} --out {out}",
    ("push", "file"): "push {odd} me/net",
    ("push", "evaluation"): "push {adapter} me/net --eval {odd}",
    ("push", "report"): "push {adapter} me/net --report {odd}",
    ("pull", "out"): "pull me/net --out {odd}",
    ("cascade", "images"): "cascade {odd} --run {run} --weights {weights} --out {out}",
    ("cascade", "run"): "cascade --run {odd} --weights {weights} --out {out}",
    ("cascade", "weights"): "cascade --run {run} --weights {odd} --out {out}",
    ("cascade", "out"): "cascade --run {run} --weights {weights} --out {odd}",
    ("data", "folder"): "data eurosat {odd} --root {images}",
    ("data", "root"): "data eurosat {out} --root {odd}",
    ("data", "split"): "data eurosat {out} --root {eurosat} --split {odd}",
    ("demo", "out"): "demo --out {odd}",
}
"""The words by command and parameter; `{odd}` is what is no file."""
WRITTEN_TO = {("eval", name) for name in ("plot", "report", "summary", "junit")}
"""Results, which may go to a pipe that somebody reads."""
SPELLED = ("teacher", "witness", "out")
"""Parameters that are a path by what they say, not by their type."""


def paths_taken() -> set[tuple[str, str]]:
    """Every parameter of every command that is a path."""
    found = set()
    for name, command in _COMMANDS.items():
        hints = get_type_hints(command)
        for parameter in inspect.signature(command).parameters:
            if "Path" in str(hints[parameter]) or parameter in SPELLED:
                found.add((name, parameter))
    return found


def test_every_parameter_that_is_a_path_has_its_row() -> None:
    assert paths_taken() == PLACES.keys() | WRITTEN_TO


@contextmanager
def odd_file(kind: str, path: Path) -> Iterator[threading.Event]:
    """What is no file; the event tells that somebody waits for it, whom it gives an end of file."""
    waited, is_over = threading.Event(), threading.Event()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    with ExitStack() as stack:
        if kind == "socket":
            here = Path.cwd()
            os.chdir(path.parent)  # the whole path may have 107 bytes
            stack.enter_context(socket.socket(socket.AF_UNIX)).bind(path.name)
            os.chdir(here)
            yield waited
            return
        if kind == "terminal":
            ours, theirs = os.openpty()
            path.symlink_to(os.ttyname(theirs))
            stack.callback(os.close, ours)
            stack.callback(os.close, theirs)
            thread = threading.Thread(target=_end_terminal, args=(ours, waited, is_over))
        else:
            os.mkfifo(path)
            thread = threading.Thread(target=_write_pipe, args=(path, waited, is_over))
        thread.start()
        try:
            yield waited
        finally:
            is_over.set()
            if kind == "pipe":  # open until the thread has come to it, or it would wait for ever
                stack.callback(os.close, os.open(path, os.O_RDONLY | os.O_NONBLOCK))
            thread.join()


def _write_pipe(pipe: Path, waited: threading.Event, is_over: threading.Event) -> None:
    with pipe.open("wb"):  # which waits for a reader
        if not is_over.is_set():
            waited.set()


def _end_terminal(ours: int, waited: threading.Event, is_over: threading.Event) -> None:
    if not is_over.wait(LIMIT_S):
        waited.set()
        while not is_over.wait(0.1):
            os.write(ours, b"\x04")


@pytest.fixture(scope="module")
def other(road: Road, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A second adapter over the road's base."""
    out = tmp_path_factory.mktemp("other") / "other.safetensors"
    quietly("merge", road.adapter, road.adapter, "--weights", road.weights, "--out", out)
    return out


@pytest.fixture
def places(road: Road, other: Path, tmp_path: Path) -> dict[str, Path]:
    return {**vars(road), "other": other, "out": tmp_path / "out", "eurosat": tmp_path / "eurosat"}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("command", "parameter"), [pytest.param(*place, id="-".join(place)) for place in PLACES])
def test_what_is_no_file_is_told_at_once(
    command: str,
    parameter: str,
    kind: str,
    places: dict[str, Path],
    run_cli: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = PLACES[command, parameter]
    if command == "export":
        pytest.importorskip("onnxscript", reason="needs the onnx extra")
    if "{eurosat}" in words:
        DOWNLOADS["eurosat"](places["eurosat"], monkeypatch, "eurosat")
    odd = tmp_path / "odd.safetensors"
    with odd_file(kind, odd) as waited:
        outcome = run_cli(*words.format(**places, odd=odd).split())
        assert not waited.is_set()
        assert os.path.lexists(odd)
    check_told(outcome, odd)


def check_told(outcome: Outcome, odd: str | Path) -> None:
    """One line that names it, and an exit code of bad data, of a bad file or of wrong usage."""
    lines = [line for line in outcome.err.splitlines() if line.startswith("smn: ")]
    assert outcome.code in (2, 5, 6), outcome.err
    assert len(lines) == 1
    assert str(odd) in lines[0]
    assert "Errno" not in lines[0]
    assert "None" not in lines[0]


INSIDE = {
    "a list": ("list.txt", "embed {root}/list.txt --adapter {adapter} --weights {weights} --out {out}.npy"),
    "a line of a list": ("a.png", "embed {list} --adapter {adapter} --weights {weights} --out {out}.npy"),
    "a tar": ("a.tar", "embed {root}/a.tar --adapter {adapter} --weights {weights} --out {out}.npy"),
    "a compressed tar": ("a.tar.gz", "embed {root}/a.tar.gz --adapter {adapter} --weights {weights} --out {out}.npy"),
    "a zip": ("a.zip", "embed {root}/a.zip --adapter {adapter} --weights {weights} --out {out}.npy"),
    "a parquet": ("a.parquet", "embed {root}/a.parquet --adapter {adapter} --weights {weights} --out {out}.npy"),
    "an image of an archive": ("a.zip", "embed {root}/a.zip/b.png --adapter {adapter} --weights {weights} --out {out}"),
    "an image": ("a.png", "embed {root}/a.png --adapter {adapter} --weights {weights} --out {out}.npy"),
    "weights of torch": ("a.pth", f"embed {{images}} --arch {RESNET} --weights {{root}}/a.pth --out {{out}}.npy"),
    "settings of a run": ("run/config.json", "pack {root}/run --out {out}"),
    "its images": ("run/images.txt", "adapt --resume --out {root}/run"),
    "its state": ("run/checkpoint/state.pt", "adapt --resume --out {root}/run"),
    "its state, packed": ("run/checkpoint/state.pt", "pack {root}/run --out {out}"),
    "settings of a cascade": ("cascade/config.json", "cascade --resume --out {root}/cascade"),
    "a run that is replaced": ("run/config.json", f"adapt {{images}} {BASE} --out {{root}}/run --overwrite"),
    "a note of a data set": ("set/smn-data.json", "data eurosat {root}/set"),
}
"""Where it lies in the root, and the words."""


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("what", INSIDE)
def test_what_is_no_file_inside_of_what_is_given(
    what: str, kind: str, places: dict[str, Path], run_cli: Run, tmp_path: Path
) -> None:
    name, words = INSIDE[what]
    root = tmp_path / "root"
    shutil.copytree(places["run"], root / "run")
    (tmp_path / "list.txt").write_text(f"root/{name}\n")
    with odd_file(kind, root / name) as waited:
        outcome = run_cli(*words.format(**places, root=root, list=tmp_path / "list.txt").split())
        assert not waited.is_set()
    check_told(outcome, name.split("/")[0])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["a.png", "a.tar", "a.zip", "a.parquet", "a.txt", "deep/a.jpg"])
def test_what_is_no_file_in_a_folder_of_images_is_left_out(
    name: str, kind: str, places: dict[str, Path], run_cli: Run, tmp_path: Path
) -> None:
    write_images(tmp_path / "images", 3)
    words = "--adapter {adapter} --weights {weights} --out {out}.npy".format(**places)
    with odd_file(kind, tmp_path / "images" / name) as waited:
        outcome = run_cli("embed", tmp_path / "images", *words.split())
        assert not waited.is_set()
    assert outcome.code == 0, outcome.err


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["smn.toml", "pyproject.toml", "other.toml"])
def test_settings_that_are_no_file(
    name: str, kind: str, road: Road, run_cli: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if name == "other.toml":
        monkeypatch.setenv("SMN_CONFIG", name)
    with odd_file(kind, tmp_path / name) as waited:
        outcome = run_cli("inspect", road.adapter)
        assert not waited.is_set()
    if name == "other.toml":
        check_told(outcome, Path(name))
    else:
        assert outcome.code == 0, outcome.err
