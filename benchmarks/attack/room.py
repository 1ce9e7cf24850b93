"""No room: files that may not grow, a file system of a few hundred kilobytes, and a system that refuses a change.

A command ends with one line and leaves what was there; with room again a run goes on to the adapter that it would
have given.
"""

import errno
import random
import resource
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.attack.place import Place, Tally, content_of, grow_old, temporaries
from benchmarks.attack.processes import Ended, smn

FAULTS = (errno.ENOSPC, errno.EIO, errno.EROFS, errno.EACCES, errno.EMFILE, errno.EDQUOT)


class Room:
    """The campaign."""

    def __init__(self, place: Place, generator: random.Random) -> None:
        self.place, self.generator = place, generator
        self.small = place.work / "small"
        self.small.mkdir()
        self.num_changes = smn(*place.adapt(place.run), root=place.work).num_changes
        place.clear()
        self.can_mount = _mounted(self.small, 1 << 20)
        if self.can_mount:
            _unmounted(self.small)
        self.expected = {name: self._undisturbed(name) for name in ("pack", "apply", "embed", "export")}

    def tries(self, tally: Tally) -> Iterator[None]:
        """Each kind in turn."""
        tally.facts["small file system"] = "mounted" if self.can_mount else "left out: not root"
        while True:
            self._run_with_limit(tally)
            yield
            for _ in range(2):
                self._run_with_fault(tally)
                yield
            for name in self.expected:
                self._command_with_fault(tally, name)
                yield
            if self.can_mount:
                self._run_on_small_system(tally)
                yield
                for name in self.expected:
                    self._command_on_small_system(tally, name)
                    yield

    def _run_with_limit(self, tally: Tally) -> None:
        """No file may grow beyond a size: RLIMIT_FSIZE."""
        limit = int(10 ** self.generator.uniform(2, 6.5))
        ended = smn(*self.place.adapt(self.place.run), prepare=lambda: _limit(limit))
        self._goes_on(tally, ended, self.place.run, f"files of at most {limit} bytes")

    def _run_with_fault(self, tally: Tally) -> None:
        """The system refuses a change of a file, once or from then on."""
        fault = (self.generator.randrange(self.num_changes) + 1, self.generator.choice(FAULTS), self._coin())
        ended = smn(*self.place.adapt(self.place.run), root=self.place.work, fault=fault)
        self._goes_on(tally, ended, self.place.run, _told(fault))

    def _run_on_small_system(self, tally: Tally) -> None:
        size = int(10 ** self.generator.uniform(4, 6.7))
        with _mount(self.small, size):
            ended = smn(*self.place.adapt(self.small / "run"))
            subprocess.run(["mount", "-o", "remount,size=64m", str(self.small)], check=True)
            self._goes_on(tally, ended, self.small / "run", f"a file system of {size} bytes")

    def _goes_on(self, tally: Tally, ended: Ended, run: Path, what: str) -> None:
        """Judge how a run ended, and that it goes on."""
        tally.check(not (fault := ended.fault(may_lack_room=True)), f"adapt, {what}: {fault}")
        tally.outcomes[f"adapt, {what.partition(' ')[0]}...: exit {ended.code}, then as if undisturbed"] += 1
        grow_old(temporaries(self.place.work))
        again = smn(*self.place.resume(run))
        tally.check(again.code == 0, f"adapt, {what}, then room: exit {again.code}: {again.said[-600:]}")
        result = self.place.packed(run)
        tally.check(result == self.place.expected, f"adapt, {what}, then room: another adapter: {result!r:.300}")
        tally.check(not (left := temporaries(self.place.work)), f"adapt, {what}: leaves {left}")
        self.place.clear()

    def _command_with_fault(self, tally: Tally, name: str) -> None:
        words, target = self._words(name, self.place.out)
        fault = (self.generator.randrange(6) + 1, self.generator.choice(FAULTS), self._coin())
        ended = smn(*words, root=self.place.work, fault=fault)
        self._whole_or_not(tally, ended, name, target, _told(fault))

    def _command_on_small_system(self, tally: Tally, name: str) -> None:
        size = int(10 ** self.generator.uniform(3.6, 6.5))
        with _mount(self.small, size):
            words, target = self._words(name, self.small)
            self._whole_or_not(tally, smn(*words), name, target, f"a file system of {size} bytes")

    def _whole_or_not(self, tally: Tally, ended: Ended, name: str, target: Path, what: str) -> None:
        tally.check(not (fault := ended.fault(may_lack_room=True)), f"{name}, {what}: {fault}")
        expected = self.expected[name] if ended.code == 0 else None
        tally.check(content_of(target) == expected, f"{name}, {what}: exit {ended.code}, and {target.name} is not that")
        tally.outcomes[f"{name}, {what.partition(' ')[0]}...: exit {ended.code}"] += 1
        self.place.clear()

    def _undisturbed(self, name: str) -> bytes | None:
        words, target = self._words(name, self.place.out)
        self.place.must(*words)
        content = content_of(target)
        self.place.clear()
        return content

    def _words(self, name: str, out: Path) -> tuple[list[object], Path]:
        place = self.place
        network: list[object] = ["--weights", place.weights]
        target = out / {"pack": "a.safetensors", "apply": "c.safetensors", "embed": "f.npy", "export": "onnx"}[name]
        words: dict[str, list[object]] = {
            "pack": ["pack", place.whole, "--out", target],
            "apply": ["apply", place.adapter, "--out", target],
            "embed": ["embed", place.images, "--adapter", place.adapter, "--out", target],
            "export": ["export", place.adapter, "--onnx", target],
        }
        here = ["--device", "cpu", "--workers", 0] if name == "embed" else []
        return [*words[name], *network, *here], target

    def _coin(self) -> bool:
        return self.generator.random() < 0.5


def _limit(num_bytes: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, num_bytes))


def _told(fault: tuple[int, int, bool]) -> str:
    number, code, goes_on = fault
    return f"{errno.errorcode[code]} at change {number}{' and all later ones' if goes_on else ''}"


@contextmanager
def _mount(folder: Path, num_bytes: int) -> Iterator[None]:
    if not _mounted(folder, num_bytes):
        raise SystemExit(f"{folder} cannot be mounted any more")
    try:
        yield
    finally:
        _unmounted(folder)


def _mounted(folder: Path, num_bytes: int) -> bool:
    if shutil.which("mount") is None:
        return False
    words = ["mount", "-t", "tmpfs", "-o", f"size={num_bytes}", "tmpfs", str(folder)]
    return subprocess.run(words, capture_output=True, check=False).returncode == 0


def _unmounted(folder: Path) -> None:
    subprocess.run(["umount", str(folder)], check=True)
