"""Who works on a file is told from who was killed while working on it."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from smn_cli import holding
from smn_cli.atomic import atomic_folder, write_atomically
from smn_cli.errors import UsageError
from smn_cli.holding import hold, hold_patiently
from smn_cli.runs.run_folder import RunFolder
from tests.conftest import CONVNET
from tests.small_runs import Workshop

pytest.importorskip("fcntl", reason="nothing is held on this system")
LONG_AGO = 1_000_000_000
HOLD = (
    "import sys, time\nfrom pathlib import Path\nfrom smn_cli.holding import hold\n"
    "kept = hold(Path(sys.argv[1]))\nprint('held' if kept else 'refused', flush=True)\ntime.sleep(60)"
)


@contextmanager
def another_process(path: Path) -> Iterator["subprocess.Popen[str]"]:
    """One that holds a path until it is killed."""
    words = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def age(path: Path) -> None:
    os.utime(path, (LONG_AGO, LONG_AGO))


def test_what_one_process_holds_no_other_gets_until_it_is_killed(tmp_path: Path) -> None:
    with another_process(tmp_path) as process:
        assert hold(tmp_path) is None
        process.kill()
        process.wait()
        assert hold_patiently(tmp_path) is not None


def test_a_process_may_hold_twice_and_lets_go_with_the_last(tmp_path: Path) -> None:
    first, second = hold(tmp_path), hold(tmp_path)
    assert first is not None
    assert second is not None
    first.release()
    first.release()
    found = subprocess.run([sys.executable, "-c", HOLD.replace("time.sleep(60)", ""), str(tmp_path)],
                           capture_output=True, text=True, check=True)  # fmt: skip
    assert found.stdout == "refused\n"
    second.release()
    found = subprocess.run([sys.executable, "-c", HOLD.replace("time.sleep(60)", ""), str(tmp_path)],
                           capture_output=True, text=True, check=True)  # fmt: skip
    assert found.stdout == "held\n"


def test_temporary_files_of_killed_processes_are_cleared_and_no_others(tmp_path: Path) -> None:
    dead, living, young = (tmp_path / f".out.json.{name}" for name in ("aaaaaaaa", "bbbbbbbb", "cccccccc"))
    others = [tmp_path / ".out.json.bak", tmp_path / ".other.json.dddddddd", tmp_path / ".out.json.AAAAAAAA"]
    for path in (dead, living, young, *others):
        path.write_text("half")
        if path != young:
            age(path)
    folder = tmp_path / ".out.json.eeeeeeee"
    (folder / "checkpoint").mkdir(parents=True)
    age(folder)
    with another_process(living):
        write_atomically(tmp_path / "out.json", b"{}")
    assert {*tmp_path.iterdir()} == {living, young, *others, tmp_path / "out.json"}


def test_folders_too(tmp_path: Path) -> None:
    dead = tmp_path / ".out.aaaaaaaa"
    dead.mkdir()
    age(dead)
    with atomic_folder(tmp_path / "out") as making:
        assert not dead.exists()
        assert hold_patiently(making, 0) is not None  # this process holds it already


def test_a_run_that_goes_on_clears_what_was_left_when_it_was_made(
    workshop: Callable[..., Workshop], tmp_path: Path
) -> None:
    place = workshop(CONVNET)
    place.finish("run", steps=2).close()
    dead, users = tmp_path / ".run.aaaaaaaa", tmp_path / "run" / ".notes.original"
    (dead / "checkpoint").mkdir(parents=True)
    age(dead)
    just_now = tmp_path / "run" / "checkpoint" / ".state.pt.aaaaaaaa"  # nobody else works there
    for path in (just_now, users):
        path.write_bytes(b"half")
    place.resume("run").close()
    assert (dead.exists(), just_now.exists(), users.exists()) == (False, False, True)


def test_two_runs_into_one_folder_are_refused_by_name(
    workshop: Callable[..., Workshop], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holding.hold_patiently, "__defaults__", (0.5,))
    place = workshop(CONVNET)
    session = place.start("run", steps=2, batch_size=8, size=32, teacher_size=48, keep="last")
    session.close()
    path = session.folder.path
    started = time.monotonic()
    with another_process(path):
        with pytest.raises(UsageError, match="is being worked on by another smn"):
            RunFolder.open(path).hold()
        with pytest.raises(UsageError, match="is being worked on by another smn"):
            RunFolder.check_free(path, overwrite=True)
    assert time.monotonic() - started > 0.5  # a run that was killed is given time to go
    assert path.is_dir()
