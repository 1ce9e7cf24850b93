"""Commands of smn in forks of a process that has everything imported: a tenth of a second where a fresh one takes five.

A fork can be killed after a time, or at its n-th change of a file; or such a change can fail, as on a full disk.
"""

import contextlib
import errno
import importlib
import os
import pkgutil
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import smn_cli

ROOT = Path(__file__).parents[2]
LIMIT_S = 120.0
"""A command that takes longer hangs; the slowest here take ten seconds."""
NOT_LEARNING = ("would be cut: ", "the loss is ", "no longer finite numbers: ")
"""Of the errors of training that cannot go on, which end with 1."""
_CHANGES = frozenset(
    {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.chmod", "os.truncate", "os.utime", "os.link", "os.symlink"}
)
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


@dataclass(frozen=True)
class Ended:
    """What became of a command: exit code (negative: the signal; None: it hung), stderr, seconds, changes of files."""

    code: int | None
    said: str
    seconds: float = 0.0
    num_changes: int = 0

    @property
    def was_killed(self) -> bool:
        """By the campaign, not by a fault of its own."""
        return self.code == -signal.SIGKILL

    @property
    def lines(self) -> list[str]:
        """What it said of its end."""
        return [line for line in self.said.splitlines() if line.startswith("smn: ")]

    def fault(self, *, may_lack_room: bool = False, may_not_learn: bool = False) -> str:
        """What is wrong with how it ended, in words; empty if it is documented (0, 2 to 6, 130).

        Args:
            may_lack_room: whether it may end with 1 and one line about what the system refused.
            may_not_learn: the same, about training that cannot go on.
        """
        if self.code is None:
            return f"hung for more than {LIMIT_S:.0f} s"
        is_one_line = self.code == 1 and len(self.lines) == 1
        is_told = may_lack_room and is_one_line and "smn: cannot read or write" in self.said
        is_told |= may_not_learn and is_one_line and any(words in self.said for words in NOT_LEARNING)
        if self.code in (0, 2, 3, 4, 5, 6, 130) or is_told:
            return "a traceback" if "Traceback (most recent call last)" in self.said else ""
        return f"exit {self.code}: {self.said[-600:]}"


def warm_up() -> None:
    """Import all of smn and what its commands import; nothing is computed, so that no thread is there to be lost."""
    os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_DISABLE_XET": "1"}
    os.environ.setdefault("SMN_CACHE_HOME", os.devnull)
    import torch

    torch.set_num_threads(1)
    for found in pkgutil.walk_packages(smn_cli.__path__, "smn_cli."):
        if not found.name.endswith("__main__"):
            with contextlib.suppress(ImportError):
                importlib.import_module(found.name)
    for name in (
        "sklearn.linear_model",
        "sklearn.mixture",
        "timm",
        "torch._dynamo",
        "scipy.special",
        "huggingface_hub",
    ):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


def smn(
    *words: object,
    kill_after: float | None = None,
    kill_at: int | None = None,
    fault: tuple[int, int, bool] | None = None,
    prepare: Callable[[], None] | None = None,
    root: Path | None = None,
) -> Ended:
    """Run a command in a fork.

    Args:
        words: the command.
        kill_after: seconds after which it is killed.
        kill_at: number of a change of a file below `root`, at which it is killed before the change is made.
        fault: number of a change that fails, the error's number, and whether all later ones fail too.
        prepare: called in the fork before.
        root: folder whose changes are counted.
    """
    return forked(lambda: _main([*map(str, words)]), kill_after, _Watch(root, kill_at, fault), prepare)


def fresh(*words: object, kill_after: float) -> Ended:
    """The same as a process of its own, started from nothing."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    started = time.monotonic()
    command = [sys.executable, "-m", "smn_cli", *map(str, words)]
    with subprocess.Popen(
        command, text=True, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as process:
        try:
            _, said = process.communicate(timeout=kill_after)
        except subprocess.TimeoutExpired:
            process.kill()
            _, said = process.communicate()
    return Ended(process.returncode, said, time.monotonic() - started)


class _Watch:
    """Counts changes of files, and kills or fails at one of them; a hook of `sys.addaudithook`."""

    def __init__(self, root: Path | None, kill_at: int | None, fault: tuple[int, int, bool] | None) -> None:
        self.root = None if root is None else str(root.absolute())
        self.kill_at, self.fault, self.num_changes, self.is_on = kill_at, fault, 0, False

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.is_on or self.root is None or not self._is_change(event, arguments):
            return
        self.num_changes += 1
        if self.kill_at == self.num_changes:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.fault is None:
            return
        number, code, goes_on = self.fault
        is_due = self.num_changes == number or (goes_on and self.num_changes > number)
        if is_due and not (code == errno.ENOSPC and event in ("os.remove", "os.rmdir", "os.chmod", "os.truncate")):
            raise OSError(code, os.strerror(code), arguments[0])

    def _is_change(self, event: str, arguments: tuple[Any, ...]) -> bool:
        if event not in _CHANGES and not (event == "open" and arguments[2] & _WRITES):
            return False
        if not isinstance(arguments[0], str | bytes | os.PathLike):
            return False
        path = os.path.abspath(os.fsdecode(arguments[0]))  # noqa: PTH100  # Path would call the hook again
        return path.startswith(f"{self.root}{os.sep}")


def forked(
    work: Callable[[], int],
    kill_after: float | None = None,
    watch: _Watch | None = None,
    prepare: Callable[[], None] | None = None,
) -> Ended:
    """Do some work in a fork, whose exit code it returns."""
    said, told = os.pipe()
    started = time.monotonic()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        os.close(said)
        _be_the_fork(work, told, watch or _Watch(None, None, None), prepare)
    os.close(told)
    try:
        return _followed(pid, said, started, kill_after)
    finally:
        os.close(said)


def _be_the_fork(work: Callable[[], int], told: int, watch: _Watch, prepare: Callable[[], None] | None) -> None:
    code = 1
    try:
        os.dup2(os.open(os.devnull, os.O_RDWR), 1)
        os.dup2(told, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w", buffering=1)
        if watch.root is not None:
            sys.addaudithook(watch)
        if prepare is not None:
            prepare()
        watch.is_on = True
        code = work()
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        watch.is_on = False
        sys.stderr.write(f"\nchanges: {watch.num_changes}\n")
        sys.stderr.flush()
        os._exit(code)


def _main(words: list[str]) -> int:
    from smn_cli.cli import main

    try:
        main(words)
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def _followed(pid: int, said: int, started: float, kill_after: float | None) -> Ended:
    pieces: list[bytes] = []
    hung = False
    while True:
        now = time.monotonic() - started
        until = LIMIT_S if kill_after is None else min(kill_after, LIMIT_S)
        if now >= until:
            hung = until == LIMIT_S
            os.kill(pid, signal.SIGKILL)
            kill_after = 2 * LIMIT_S  # once is enough; what is left is read
        readable, _, _ = select.select([said], [], [], max(0.0, min(0.2, until - now)))
        if readable:
            piece = os.read(said, 1 << 16)
            if not piece:
                break
            pieces.append(piece)
    _, status = os.waitpid(pid, 0)
    text, _, changes = b"".join(pieces).decode(errors="replace").rpartition("\nchanges: ")
    if not changes.strip().isdigit():
        text, changes = text + changes, "0"
    code = None if hung else os.waitstatus_to_exitcode(status)
    return Ended(code, text, time.monotonic() - started, int(changes))
