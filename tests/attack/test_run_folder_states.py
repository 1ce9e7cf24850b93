"""Whatever is done to a run folder, in whatever order, its adapter is the undisturbed one, or the reason is told."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import HealthCheck, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from smn_cli.errors import CheckpointError, Interrupted, SmnError, UsageError
from smn_cli.holding import hold
from smn_cli.runs.pack import pack_run
from smn_cli.runs.run_folder import RunFolder
from smn_cli.training.session import Session, StopSignal
from tests.conftest import RESNET, write_images
from tests.small_runs import Workshop, equal, masks_of

pytestmark = pytest.mark.attack
pytest.importorskip("fcntl", reason="nothing is held on this system")
STEPS = 4
SETTINGS: dict[str, Any] = {"steps": STEPS, "lr_scores": 500.0}
HOLD = (
    "import fcntl, os, sys, time\nfcntl.flock(os.open(sys.argv[1], os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB)\n"
    "print('held', flush=True)\ntime.sleep(600)"
)


class Killed(BaseException):
    """Takes the place of a kill: nothing after it is done."""


class RunFolders(RuleBasedStateMachine):
    """One folder, and what is known of it.

    Attributes:
        place, expected: images and weights; the bytes of the undisturbed adapter.
        is_damaged: whether a file was touched that the result depends on.
        other: of another process, which works in the folder.
    """

    place: ClassVar[Workshop]
    expected: ClassVar[bytes]

    def __init__(self) -> None:
        super().__init__()
        shutil.rmtree(self.place.runs, ignore_errors=True)
        self.place.runs.mkdir()
        self.is_damaged = False
        self.other: subprocess.Popen[bytes] | None = None

    @property
    def path(self) -> Path:
        return self.place.runs / "run"

    @initialize(steps=st.integers(0, STEPS))
    def start(self, steps: int) -> None:
        """A run that takes some steps, and then is as if it had been killed."""
        session = self.place.start("run", save_every_s=0, **SETTINGS)
        self._take(session, steps)
        session.close()

    @rule(steps=st.integers(0, STEPS), stops=st.booleans())
    def go_on(self, steps: int, stops: bool) -> None:
        """Resume, take some steps, stop or be killed."""
        try:
            session = Session.resume(self.path, self.place.backbone())
        except (CheckpointError, UsageError) as error:
            self._has_a_reason(error)
            return
        assert not self.other
        try:
            self._take(session, steps, stops=stops)
        finally:
            session.close()

    @rule()
    def start_again(self) -> None:
        """Nobody's run is replaced without being asked for."""
        with pytest.raises((UsageError, CheckpointError)):
            self.place.start("run", save_every_s=0, **SETTINGS)

    @rule()
    def replace(self) -> None:
        """With `overwrite` it is."""
        try:
            self.place.start("run", overwrite=True, save_every_s=0, **SETTINGS).close()
        except (UsageError, CheckpointError) as error:
            self._check(bool(self.other) or self.is_damaged, error)
            return
        self.is_damaged = False

    @rule(data=st.data(), change=st.sampled_from(["bit", "cut", "gone", "empty"]))
    def damage(self, data: st.DataObject, change: str) -> None:
        """A file of the folder is changed behind its back."""
        files = sorted(path for path in self.path.rglob("*") if path.is_file())
        if not files:
            return
        path = data.draw(st.sampled_from(files))
        content = bytearray(path.read_bytes())
        position = data.draw(st.integers(0, max(0, len(content) - 1)))
        if change == "bit" and content:
            content[position] ^= 1 << data.draw(st.integers(0, 7))
        path.unlink()
        if change != "gone":
            path.write_bytes({"bit": bytes(content), "cut": bytes(content[:position])}.get(change, b""))
        self.is_damaged |= path.name not in ("metrics.jsonl", "report.html")

    @rule(name=st.sampled_from([".config.json.abcdefgh", "checkpoint/.state.pt.abcdefgh", "notes.txt"]))
    def leave(self, name: str) -> None:
        """What a killed process left lies there, or what a user put there."""
        (self.path / name).parent.mkdir(parents=True, exist_ok=True)
        (self.path / name).write_bytes(b"half")
        os.utime(self.path / name, (1, 1))

    @precondition(lambda self: not self.other)
    @rule()
    def come_in(self) -> None:
        """Another process works in the folder."""
        self.other = subprocess.Popen([sys.executable, "-S", "-c", HOLD, self.path], stdout=subprocess.PIPE)
        assert self.other.stdout is not None
        assert self.other.stdout.readline() == b"held\n"

    @precondition(lambda self: self.other)
    @rule()
    def leave_by_a_kill(self) -> None:
        """It is killed."""
        assert self.other is not None
        self.other.kill()
        self.other.communicate()
        self.other = None

    @rule()
    def finish(self) -> None:
        """Go on to the end: the adapter is the undisturbed one."""
        try:
            session = Session.resume(self.path, self.place.backbone())
        except (CheckpointError, UsageError) as error:
            self._has_a_reason(error)
            return
        assert not self.other
        try:
            self._take(session, STEPS)
        finally:
            session.close()
        assert self._packed() in (self.expected, None)
        assert self.is_damaged or self._packed() == self.expected

    @invariant()
    def no_wrong_adapter(self) -> None:
        """What can be packed of a finished run is the undisturbed adapter; of another one, it says so."""
        if not self.path.exists():
            return
        try:
            state = RunFolder.open(self.path).load_state()
        except CheckpointError as error:
            self._check(self.is_damaged, error)
            return
        if int(state["trainer"]["step"]) == STEPS:
            packed = self._packed()
            assert packed == self.expected or (packed is None and self.is_damaged)

    def teardown(self) -> None:
        if self.other:
            self.leave_by_a_kill()

    def _packed(self) -> bytes | None:
        try:
            return pack_run(RunFolder.open(self.path), self.place.backbone()).to_bytes()
        except SmnError:
            return None

    def _take(self, session: Session, steps: int, *, stops: bool = False) -> None:
        stop = StopSignal()
        try:
            for number, _ in enumerate(session.steps(stop), 1):
                stop.requested = stops and number >= steps
                if not stops and number > steps:
                    raise Killed
        except (Killed, Interrupted):
            return

    def _has_a_reason(self, error: Exception) -> None:
        self._check(isinstance(error, UsageError) == bool(self.other) or self.is_damaged, error)

    def _check(self, has_reason: bool, error: Exception) -> None:
        assert has_reason, error
        assert "\n" not in str(error)


@pytest.fixture
def machine(weights_file: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> type[RunFolders]:
    torch.set_num_threads(1)
    monkeypatch.setattr("smn_cli.runs.run_folder.hold_patiently", hold)  # nobody waits for the other process here
    write_images(tmp_path / "images", 16)
    place = Workshop(weights_file(RESNET), RESNET, tmp_path / "images", tmp_path / "runs")
    session = place.finish("whole", **SETTINGS)
    session.close()
    shorter = place.start("shorter", **SETTINGS)
    next(iter(shorter.steps()))
    masks = masks_of(shorter)
    assert not equal(masks, masks_of(session)), "a lost step would not be seen"
    shorter.close()
    RunFolders.place, RunFolders.expected = place, pack_run(session.folder, place.backbone()).to_bytes()
    return RunFolders


def test_no_order_of_events_gives_a_wrong_adapter(machine: type[RunFolders]) -> None:
    checks = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    how = settings(
        max_examples=50, stateful_step_count=10, deadline=None, derandomize=True, suppress_health_check=checks
    )
    run_state_machine_as_test(machine, settings=how)
