"""Streams that are closed, or whose reader has gone, or that are full: every command does its work all the same."""

import errno
import os
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

from smn_cli.cli import _COMMANDS
from tests.commands.conftest import SHORT, Road
from tests.conftest import RESNET, Cached, Outcome
from tests.datasets.downloads import DOWNLOADS

pytestmark = pytest.mark.slow
Run = Callable[..., Outcome]
ADAPTED = f"adapt {{images}} --arch {RESNET} --weights {{weights}} --out {{out}} {SHORT}"
WORDS = {
    "adapt": ADAPTED.replace("--steps 3", "--steps 1"),
    "plan": f"plan {{images}} --arch {RESNET} --weights {{weights}} --size 32 --batch-size 8 --recipe paper --steps 1",
    "eval": "eval {labeled} --adapter {adapter} --weights {weights} --k 3 --report {out}.html",
    "embed": "embed {images} --adapter {adapter} --weights {weights} --out {out}.npy",
    "pack": "pack {run} --out {out}",
    "apply": "apply {adapter} --weights {weights} --out {out}.safetensors",
    "export": "export {adapter} --weights {weights} --onnx {out}",
    "inspect": "inspect {adapter}",
    "verify": "verify {adapter} --weights {weights}",
    "diff": "diff {adapter} {adapter} --weights {weights}",
    "merge": "merge {adapter} {adapter} --weights {weights} --out {out}",
    "push": "push {adapter} me/net",
    "pull": "pull me/net --out {out}",
    "cascade": "cascade --resume --out {cascade}",
    "data": "data eurosat {out} --root {root}",
    "demo": "demo --out {images}",
}
REFUSED = {"demo": 2}
"""Exit codes of words that stand for others, which take minutes."""
LOST = ("both closed", "stdout unread", "stderr unread")
MAKES = {"eval": "out.html", "embed": "out.npy", "apply": "out.safetensors"}


def test_every_command_has_its_words() -> None:
    assert WORDS.keys() == _COMMANDS.keys()


@contextmanager
def unread() -> Iterator[IO[str]]:
    """A stream whose reader has gone; at its end it has nothing left that Python would complain of."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stream:
        yield stream


@contextmanager
def losing(how: str) -> Iterator[None]:
    """Streams as a shell gives them: None is what Python makes of a closed one."""
    names = ("stdout", "stderr") if how.startswith("both") else (how.split()[0],)
    with unread() as first, unread() as second, pytest.MonkeyPatch.context() as patch:
        for name, stream in zip(names, (first, second), strict=False):
            patch.setattr(sys, name, None if how.endswith("closed") else stream)
        yield
        if how.endswith("closed"):
            for name in names:
                getattr(sys, name).close()  # which smn opened


@pytest.fixture
def words_of(
    road: Road, cascade_file: Path, hub_cache: Cached, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], list[str]]:
    """The words of a command, over files that are there."""
    sent = "https://hub/me/net/commit/1"
    monkeypatch.setattr("smn_cli.hub.send", lambda *_args, **_options: sent)
    hub_cache.put("me/net", {"adapter.safetensors": road.adapter.read_bytes()})
    places = {**vars(road), "out": tmp_path / "out", "cascade": cascade_file.parent, "root": tmp_path / "root"}

    def words(command: str) -> list[str]:
        if command == "export":
            pytest.importorskip("onnxscript", reason="needs the onnx extra")
        if command == "data":
            DOWNLOADS["eurosat"](tmp_path / "root", monkeypatch, "eurosat")
        return shlex.split(WORDS[command].format(**places))

    return words


def exit_code(words: list[str]) -> int:
    from smn_cli.cli import main

    with pytest.raises(SystemExit) as exit_info:
        main(words)
    return int(exit_info.value.code or 0)


@pytest.mark.parametrize("how", LOST)
@pytest.mark.parametrize("command", _COMMANDS)
def test_a_stream_that_nobody_reads_stops_no_work(
    command: str,
    how: str,
    words_of: Callable[[str], list[str]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = words_of(command)
    with losing(how):
        code = exit_code(words)
    assert code == REFUSED.get(command, 0)
    if f"{tmp_path}/out" in " ".join(words):
        assert (tmp_path / MAKES.get(command, "out")).exists()
    seen = capsys.readouterr()
    assert not {"Traceback", "unexpected fault"} & set(seen.out + seen.err)


@pytest.mark.parametrize("command", _COMMANDS)
def test_json_that_nobody_reads_stops_no_work(
    command: str, words_of: Callable[[str], list[str]], tmp_path: Path
) -> None:
    words = [*words_of(command), "--json", "-"]
    with losing("stdout unread"):
        assert exit_code(words) == REFUSED.get(command, 0)
    if f"{tmp_path}/out" in " ".join(words):
        assert (tmp_path / MAKES.get(command, "out")).exists()


@pytest.mark.parametrize("command", _COMMANDS)
def test_json_for_a_closed_stdout_is_refused_before_the_work(
    command: str,
    words_of: Callable[[str], list[str]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = [*words_of(command), "--json", "-"]
    with losing("stdout closed"):
        assert exit_code(words) == 2
    assert capsys.readouterr().err.splitlines()[-1] == "smn: --json -: stdout is closed; name a file"
    assert not list(tmp_path.glob("out*"))


@pytest.mark.parametrize("how", LOST)
def test_an_error_keeps_its_exit_code(how: str, road: Road, tmp_path: Path) -> None:
    for words, code in (
        (["inspect", str(road.weights)], 6),
        (["inspect", "--none"], 2),
        (["inspect", str(tmp_path / "a.txt")], 6),
        (["--version"], 0),
        (["--help"], 0),
        (["adapt", "--help"], 0),
    ):  # fmt: skip
        with losing(how):
            found = exit_code(words)
        assert found == code, words


def test_a_broken_pipe_of_some_work_is_no_success(road: Road, run_cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    monkeypatch.setattr("smn_cli.adapters.stored.load_stored", fail)
    outcome = run_cli("inspect", road.adapter)
    assert (outcome.code, outcome.err) == (1, "smn: cannot read or write [Errno 32] Broken pipe\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no full device on this system")
def test_a_full_stdout_is_told_once(
    road: Road, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert exit_code(["inspect", str(road.adapter)]) == 1
        monkeypatch.undo()
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("smn: cannot read or write")
    assert "make room" in line
