"""What surrounds a command: streams that are closed, disks that are full, folders that are gone, names that steer."""

import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from smn_cli.console import Output
from smn_cli.errors import UsageError, printable
from tests.conftest import RESNET, Outcome

Run = Callable[..., Outcome]
GOLDEN = Path(__file__).parents[1] / "golden"
ADAPTER = GOLDEN / "v1_bits.safetensors"
ROOT = Path(__file__).parents[2]


def smn(words: str, **options: object) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    line = f"exec {sys.executable} -m smn_cli {words}"
    return subprocess.run(["sh", "-c", line], capture_output=True, text=True, env=environment, **options)  # type: ignore[call-overload, no-any-return]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (f"inspect {ADAPTER} >&-", 0, ""),
        (f"inspect {ADAPTER} >&- 2>&- <&-", 0, ""),
        (f"inspect {ADAPTER} --json - >&-", 2, "smn: --json -: stdout is closed; name a file\n"),
    ],
)
def test_streams_that_are_closed(words: str, code: int, said: str) -> None:
    done = smn(words)
    assert (done.returncode, done.stderr) == (code, said)


def test_a_closed_stream_is_not_taken_by_the_next_file(tmp_path: Path) -> None:
    """Without care the JSON's file would be number 1, and what is printed would end in it."""
    assert smn(f"inspect {ADAPTER} --json {tmp_path / 'a.json'} >&-").returncode == 0
    assert (tmp_path / "a.json").read_text().startswith("{")


def test_a_working_directory_that_is_gone(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    done = smn(f"inspect {ADAPTER} --json a.json", cwd=tmp_path / "gone", preexec_fn=(tmp_path / "gone").rmdir)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "smn: the working directory is no longer there: change to another one"


def test_a_disk_that_is_full_is_told_with_the_file_and_what_helps(tmp_path: Path) -> None:
    def little_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))

    target = tmp_path / "a.json"
    done = smn(f"inspect {ADAPTER} --json {target}", preexec_fn=little_room)
    assert done.returncode == 1
    assert done.stderr.startswith(f"smn: cannot read or write {target}: File too large; make room and run the command")
    assert list(tmp_path.iterdir()) == []


def test_json_that_may_not_be_written_is_known_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, _mode: Path(path) != tmp_path)  # the tests may run as root
    with pytest.raises(UsageError, match="may not be written to there"):
        Output(str(tmp_path / "a.json"))


@pytest.mark.parametrize("name", ["\x1b]0;owned\x07.png", "\x1b[2J.png", "a\u202eb.png", "\x9bm.png"])
def test_names_that_steer_a_terminal_are_shown_escaped(
    tmp_path: Path, run_cli: Run, weights_file: Callable[[str], Path], name: str
) -> None:
    (tmp_path / name).write_bytes(b"no image")
    Image.new("RGB", (8, 8)).save(tmp_path / "good.png")
    words = ["--arch", RESNET, "--weights", weights_file(RESNET), "--out", tmp_path / "run"]
    outcome = run_cli("adapt", tmp_path, *words)
    assert outcome.code == 5
    assert printable(name) in outcome.err
    assert not any(c in outcome.err + outcome.out for c in "\x1b\x07\u202e\x9b")


def test_a_fault_says_what_to_report(run_cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a mistake")

    monkeypatch.setattr("smn_cli.adapters.stored.load_stored", fail)
    outcome = run_cli("inspect", ADAPTER)
    first, second = outcome.err.splitlines()
    assert outcome.code == 1
    assert first == "smn: unexpected fault, RuntimeError: a mistake (smn --debug shows where)"
    assert second.startswith("smn: this is a mistake in smn: please report it, with the command and smn ")
    assert f"Python {sys.version.split()[0]}" in second
