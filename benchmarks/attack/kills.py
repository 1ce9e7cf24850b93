"""Commands killed at random moments, or at each of their changes of a file in turn.

`smn adapt` and `cascade` go on where they were killed, again and again, until they end: the result has to be the one of
an undisturbed run. What other commands write is there as a whole, or what was there before is. The next command leaves
nothing over of a killed one. `smn push` is killed while a hub on this machine listens: what is there is a whole commit.
"""

import os
import random
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.attack.place import Place, Tally, content_of, grow_old, remove, temporaries, told
from benchmarks.attack.processes import ROOT, Ended, fresh, smn
from tests.hub_stand_in import TOKEN

FRESH_SHARE = 0.02
"""Of kills that hit a process of its own, started from nothing, rather than a fork."""


@dataclass(frozen=True)
class Command:
    """A command that writes one file or folder: its words, what it writes, how long it takes, what it changes."""

    words: list[object]
    target: Path
    expected: bytes
    seconds: float
    num_changes: int
    may_replace: bool


class Kills:
    """The campaign."""

    def __init__(self, place: Place, generator: random.Random) -> None:
        self.place, self.generator = place, generator
        self.commands = {words[0]: self._undisturbed(words, target, more) for words, target, more in self._words()}
        whole = smn(*place.adapt(place.run), root=place.work)
        self.run_seconds, self.run_changes = whole.seconds, whole.num_changes
        self.cascade = place.work / "cascade"
        made = smn(*self._cascade(), root=place.work)
        self.expected_cascade = (self.cascade / "cascade.safetensors").read_bytes()
        self.cascade_seconds, self.cascade_changes = made.seconds, made.num_changes
        self.next_change: dict[object, int] = {}
        self.hub, self.num_pushes = _Hub(), 0

    def tries(self, tally: Tally) -> Iterator[None]:
        """One after another: a run, a cascade, and each other command."""
        while True:
            self.place.clear()
            self._goes_on(tally, "adapt")
            yield
            for name in self.commands:
                for _ in range(1 if name == "export" else 6):
                    self._one_file(tally, name)
                    yield
            self._goes_on(tally, "cascade")
            yield
            for _ in range(4):
                self._push(tally)
                yield

    def _words(self) -> Iterator[tuple[list[object], Path, list[object]]]:
        place, out = self.place, self.place.out
        network = ["--weights", place.weights]
        adapter, here = place.adapter, ["--device", "cpu", "--workers", 0]
        replace: list[object] = ["--overwrite"]
        yield ["pack", place.whole, *network, "--out", out / "a.safetensors"], out / "a.safetensors", replace
        yield ["apply", adapter, *network, "--out", out / "c.safetensors"], out / "c.safetensors", replace
        yield ["merge", adapter, adapter, *network, "--out", out / "m.safetensors"], out / "m.safetensors", replace
        yield ["embed", place.images, "--adapter", adapter, *network, *here, "--out", out / "f.npy"], out / "f.npy", []
        yield ["export", adapter, *network, "--onnx", out / "onnx"], out / "onnx", []

    def _undisturbed(self, words: list[object], target: Path, replace: list[object]) -> Command:
        ended = smn(*words, root=self.place.work)
        expected = content_of(target)
        if ended.code or expected is None:
            raise SystemExit(f"undisturbed, smn {words[0]} ended with {ended.code}: {ended.said}")
        self.place.clear()
        return Command([*words, *replace], target, expected, ended.seconds, ended.num_changes, bool(replace))

    def _cascade(self) -> list[object]:
        here: list[object] = ["--out", self.cascade, "--device", "cpu", "--workers", 0, "--save-every", 0]
        if (self.cascade / "config.json").exists():
            return ["cascade", "--resume", *here]
        return ["cascade", "--run", self.place.whole, "--weights", self.place.weights, "--experts", 2, *here]

    def _killed(self, words: list[object], seconds: float, num_changes: int) -> Ended:
        """Half of the time at a moment, half at a change of a file; each change in turn, so that none is left out."""
        name = words[0]
        if self.generator.random() < FRESH_SHARE:
            return fresh(*words, kill_after=self.generator.uniform(1, 8 + seconds))
        if self.generator.random() < 0.5:
            return smn(*words, root=self.place.work, kill_after=self.generator.uniform(0, 1.2 * seconds))
        number = self.next_change.get(name, 0) % max(1, num_changes) + 1
        self.next_change[name] = number
        return smn(*words, root=self.place.work, kill_at=number)

    def _goes_on(self, tally: Tally, name: str) -> None:
        """A run or a cascade, killed a few times on its way."""
        place = self.place
        is_run = name == "adapt"
        folder = place.run if is_run else self.cascade
        seconds = self.run_seconds if is_run else self.cascade_seconds
        num_changes = self.run_changes if is_run else self.cascade_changes
        next_words: Callable[[], list[object]] = (lambda: place.resume(place.run)) if is_run else self._cascade
        if not is_run:
            remove(self.cascade)
        for _ in range(self.generator.randrange(1, 6)):
            words = next_words()
            ended = self._killed(words, seconds, num_changes)
            if not ended.was_killed:
                tally.check(not (fault := ended.fault()), f"{words}: {fault}")
                tally.outcomes[f"{name}: ended before the kill"] += 1
                break
            tally.outcomes[f"{name}: killed {_phase(folder)}"] += 1
        grow_old(temporaries(place.work))
        ended = smn(*next_words())
        tally.check(ended.code == 0, f"{next_words()} after kills: exit {ended.code}: {ended.said[-600:]}")
        if ended.code == 0:
            result = place.packed(folder) if is_run else (folder / "cascade.safetensors").read_bytes()
            expected = place.expected if is_run else self.expected_cascade
            tally.check(result == expected, f"smn {name}, killed and resumed, gave another result: {result[:300]!r}")
            tally.outcomes[f"{name}: ended as if undisturbed"] += 1
        tally.check(not (left := temporaries(place.work)), f"smn {name} leaves {left}")
        place.clear()

    def _one_file(self, tally: Tally, name: object) -> None:
        command = self.commands[name]
        has_old = command.may_replace and self.generator.random() < 0.5
        if has_old:
            command.target.write_bytes(b"old")
        ended = self._killed(command.words, command.seconds, command.num_changes)
        contents = {"the whole of the new": command.expected, "what was there before": b"old" if has_old else None}
        found = told(contents, content_of(command.target))
        tally.check(found != "something else", f"{command.words}: {command.target.name} is in pieces after a kill")
        if not ended.was_killed:
            tally.check(not (fault := ended.fault()), f"{command.words}: {fault}")
        tally.outcomes[f"{name}: {'killed' if ended.was_killed else 'ended before the kill'}, {found}"] += 1
        grow_old(temporaries(self.place.work))
        if name == "export" or not command.may_replace:
            remove(command.target)
        again = smn(*command.words)
        is_same = content_of(command.target) == command.expected
        tally.check(
            again.code == 0 and is_same, f"{command.words} after a kill: exit {again.code}: {again.said[-600:]}"
        )
        tally.check(not (left := temporaries(self.place.work)), f"smn {name} leaves {left}")
        self.place.clear()

    def _push(self, tally: Tally) -> None:
        self.num_pushes += 1
        repository = f"me/net{self.num_pushes}"
        words: list[object] = ["push", self.place.adapter, repository]
        after = self.generator.uniform(0, 0.8)
        ended = smn(*words, kill_after=after, prepare=self.hub.settle)
        found = self.hub.files_in(repository)
        is_whole = found == {"adapter.safetensors", "README.md"}
        tally.check(is_whole or not found, f"smn push, killed after {after} s, left {found} of a commit")
        kind = "the whole commit" if is_whole else "nothing"
        tally.outcomes[f"push: {'killed' if ended.was_killed else 'ended before the kill'}, {kind}"] += 1
        if not ended.was_killed:
            tally.check(not (fault := ended.fault()), f"{words}: {fault}")
        again = smn(*words, prepare=self.hub.settle)
        tally.check(again.code == 0, f"smn push after a kill: exit {again.code}: {again.said[-600:]}")
        is_whole = self.hub.file(repository, "adapter.safetensors") == self.place.expected
        tally.check(is_whole, "smn push after a kill sent something else")


def _phase(folder: Path) -> str:
    """Where in its work a killed run was, by what its folder holds."""
    if not (folder / "config.json").exists():
        making = temporaries(folder.parent)
        return "while its folder was made" if any(path.is_dir() for path in making) else "before its folder"
    if (folder / "cascade.safetensors").exists():
        return "after its cascade was written"
    if not any(folder.rglob("metrics.jsonl")):
        return "before its first step"
    return "after its report" if (folder / "report.html").exists() else "among its steps"


class _Hub:
    """A hub in a process of its own, since this one may have no threads."""

    def __init__(self) -> None:
        lines = (
            "import sys; from tests.hub_stand_in import Hub, running",
            "with running(Hub()) as hub: print(hub.endpoint, flush=True); sys.stdin.read()",
        )
        command = [sys.executable, "-c", "\n".join(lines)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self._process = subprocess.Popen(command, text=True, env=environment, **pipes)  # type: ignore[call-overload]
        self.endpoint = self._process.stdout.readline().strip()

    def close(self) -> None:
        """End it."""
        self._process.stdin.close()
        self._process.wait()

    def settle(self) -> None:
        """In a fork: let the hub's client know it."""
        from huggingface_hub import constants

        os.environ["HF_TOKEN"] = TOKEN
        constants.ENDPOINT, constants.HF_HUB_OFFLINE = self.endpoint, False

    def file(self, repository: str, name: str) -> bytes | None:
        """What is there."""
        address = f"{self.endpoint}/{repository}/resolve/main/{name}"
        asked = urllib.request.Request(address, headers={"Authorization": f"Bearer {TOKEN}"})
        try:
            with urllib.request.urlopen(asked, timeout=10) as answer:
                content: bytes = answer.read()
        except urllib.error.HTTPError:
            return None
        return content

    def files_in(self, repository: str) -> set[str]:
        """Which of the two files of a commit are there."""
        return {name for name in ("adapter.safetensors", "README.md") if self.file(repository, name) is not None}
