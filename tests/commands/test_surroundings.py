"""What surrounds a command: streams that are closed, disks that are full, folders that are gone, names that steer."""

import ctypes
import os
import resource
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from smn_cli.errors import printable
from tests.conftest import RESNET, Outcome, write_images

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


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("inspect {pipe}", 6),
        ("verify {pipe}", 6),
        ("verify --quick {pipe}", 6),
        ("apply {pipe} --out {out}", 6),
        ("diff {adapter} {pipe}", 6),
        ("merge {pipe} {adapter} --out {out}", 6),
        ("pack {pipe} --out {out}", 6),
        ("plan {pipe} --arch test_resnet", 5),
        ("plan {folder} --arch test_resnet --weights {pipe}", 5),
        ("eval {folder} --adapter {pipe}", 6),
        ("eval {pipe} --adapter {adapter}", 5),
    ],
)
def test_no_command_waits_for_a_pipe(tmp_path: Path, run_cli: Run, words: str, code: int) -> None:
    pipe, folder = tmp_path / "a.safetensors", tmp_path / "images"
    os.mkfifo(pipe)
    write_images(folder / "a", 3)
    write_images(folder / "b", 3)

    opened = threading.Event()

    def write() -> None:
        with pipe.open("wb"):  # which waits for a reader, and then gives it the end of the file
            opened.set()

    writer = threading.Thread(target=write)
    writer.start()
    places = {"pipe": pipe, "adapter": ADAPTER, "folder": folder, "out": tmp_path / "o.safetensors"}
    outcome = run_cli(*words.format_map(places).split())
    was_opened = opened.is_set()
    os.close(os.open(pipe, os.O_RDONLY | os.O_NONBLOCK))
    writer.join()
    assert not was_opened
    assert outcome.code == code, outcome.err
    assert f"{pipe} " in outcome.err


def test_a_working_directory_that_is_gone(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    done = smn(f"inspect {ADAPTER} --json a.json", cwd=tmp_path / "gone", preexec_fn=(tmp_path / "gone").rmdir)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "smn: the working directory is no longer there: change to another one"


@pytest.mark.slow
def test_torch_is_not_loaded_where_it_would_end_the_process(tmp_path: Path) -> None:
    """MKL, which PyPI's torch for x86-64 brings, finds itself by way of the working directory."""
    (tmp_path / "gone").mkdir()
    words = f"plan {tmp_path} --arch {RESNET}"
    done = smn(words, cwd=tmp_path / "gone", preexec_fn=(tmp_path / "gone").rmdir)
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


@pytest.mark.slow
def test_a_run_whose_disk_fills_up_names_its_state_and_leaves_no_half_of_it(
    tmp_path: Path, weights_file: Callable[[str], Path], image_folder: Path
) -> None:
    def little_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    out = tmp_path / "run"
    words = f"--arch {RESNET} --weights {weights_file(RESNET)} --size 32 --batch-size 8 --steps 2 --keep last"
    done = smn(f"adapt {image_folder} {words} --recipe paper --out {out}", preexec_fn=little_room)
    told = done.stderr.splitlines()[-1]
    assert done.returncode == 1
    assert told.startswith(
        f"smn: cannot read or write {out / 'checkpoint' / 'state.pt'}: File too large; make room and"
    )
    assert not list(tmp_path.rglob(".*"))


def no_rights() -> None:
    """Root gets rights over what belongs to others from two capabilities; others have them never."""
    libc = ctypes.CDLL(None)
    for capability in (1, 2):  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH are lost when the process becomes smn
        libc.prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP


@pytest.mark.skipif(sys.platform != "linux", reason="capabilities are Linux's")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("inspect {adapter} --json {closed}/x.json", "--json {closed}/x.json: it may not be written to there"),
        ("merge {adapter} {adapter} --out {closed}/x", "--out {closed}/x: it may not be written to there"),
        ("eval {closed} --adapter {adapter} --report {closed}/x.html", "--report {closed}/x.html: it may not be"),
        ("export {adapter} --onnx {closed}/x", "--onnx {closed}/x: it may not be written to there"),
    ],
)
def test_a_folder_without_rights_is_known_before_the_work(tmp_path: Path, words: str, said: str) -> None:
    if "export" in words:
        pytest.importorskip("onnxscript", reason="needs the onnx extra")
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o555)
    if os.geteuid() == 0:
        os.chown(closed, 65534, 65534)
    places = {"adapter": ADAPTER, "closed": closed}
    done = smn(words.format_map(places), preexec_fn=no_rights)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(f"smn: {said.format_map(places)}")


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
