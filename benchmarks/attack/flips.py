"""Each file of a run, finished and half done, and an adapter and its base, in turn: flipped, cut, gone, overwritten.

A command over it ends with a documented error, or with the result that it would have had.
"""

import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from safetensors.numpy import load_file

from benchmarks.attack.place import Place, Tally, content_of
from benchmarks.attack.processes import smn

BLOCK = 4096


class Flips:
    """The campaign."""

    def __init__(self, place: Place, generator: random.Random) -> None:
        self.place, self.generator = place, generator
        self.half = place.work / "half"
        num_changes = smn(*place.adapt(place.run), root=place.work).num_changes
        smn(*place.adapt(self.half), root=place.work, kill_at=num_changes // 2)
        if not (self.half / "checkpoint" / "state.pt").exists():
            raise SystemExit("no run is half done")
        self.rebuilt = place.out / "rebuilt.safetensors"
        place.must(*self._apply(place.adapter, place.weights))
        self.expected = _backbone_in(self.rebuilt)

    def tries(self, tally: Tally) -> Iterator[None]:
        """One file after the other."""
        while True:
            for source, name in ((self.place.whole, "finished run"), (self.half, "half a run")):
                for file in sorted(path for path in source.rglob("*") if path.is_file() and path.stat().st_size):
                    self._of_a_run(tally, source, file.relative_to(source), name)
                    yield
            for file in (self.place.adapter, self.place.weights):
                self._of_an_adapter(tally, file)
                yield

    def _of_a_run(self, tally: Tally, source: Path, file: Path, name: str) -> None:
        place = self.place
        place.clear()
        shutil.copytree(source, place.run)
        how = self._damage(place.run / file)
        what = f"{name}, {file}"
        commands: list[list[object]] = [["adapt", "--resume", "--out", place.run, "--device", "cpu", "--workers", 0]]
        if source == place.whole:
            commands.insert(0, place.pack(place.run, place.out / "first.safetensors"))
        for words in commands:
            ended = smn(*words)
            tally.check(not (fault := ended.fault()), f"{what}: {how}: smn {words[0]}: {fault}")
            tally.outcomes[f"{what}: {words[0]} {_told(ended.code)}"] += 1
            if ended.code == 0:
                result = content_of(place.out / "first.safetensors") if words[0] == "pack" else place.packed(place.run)
                tally.check(result == place.expected, f"{what}: {how}: another adapter: {result!r:.300}")

    def _of_an_adapter(self, tally: Tally, file: Path) -> None:
        place = self.place
        place.clear()
        damaged = place.out / file.name
        shutil.copy(file, damaged)
        how = self._damage(damaged)
        adapter, weights = (damaged, place.weights) if file == place.adapter else (place.adapter, damaged)
        what = "adapter" if file == place.adapter else "base"
        for words in (["verify", adapter, "--weights", weights], self._apply(adapter, weights)):
            ended = smn(*words)
            tally.check(not (fault := ended.fault()), f"{what}: {how}: smn {words[0]}: {fault}")
            tally.outcomes[f"{what}: {words[0]} {_told(ended.code)}"] += 1
            if ended.code == 0 and words[0] == "apply":
                tally.check(_backbone_in(self.rebuilt) == self.expected, f"{what}: {how}: another network")
            else:
                tally.check(not self.rebuilt.exists(), f"{what}: {how}: smn {words[0]} failed and wrote")

    def _apply(self, adapter: Path, weights: Path) -> list[object]:
        return ["apply", adapter, "--weights", weights, "--out", self.rebuilt]

    def _damage(self, file: Path) -> str:
        """Damage a file, and say how."""
        data = file.read_bytes()
        kinds: list[Callable[[bytes], tuple[str, bytes | None]]] = [self._bit] * 6
        kinds += [self._cut, self._zeros, self._noise, self._more, lambda _: ("removed", None)]
        how, damaged = self.generator.choice(kinds)(data)
        if damaged is None:
            file.unlink()
        else:
            file.write_bytes(damaged)
        return how

    def _bit(self, data: bytes) -> tuple[str, bytes]:
        bit = self.generator.randrange(8 * len(data))
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        return f"bit {bit} flipped", bytes(changed)

    def _cut(self, data: bytes) -> tuple[str, bytes]:
        length = self.generator.randrange(len(data))
        return f"cut to {length} bytes", data[:length]

    def _zeros(self, data: bytes) -> tuple[str, bytes]:
        """As a file system leaves a block that it never wrote."""
        start = self.generator.randrange(len(data)) // BLOCK * BLOCK
        end = min(len(data), start + BLOCK)
        return f"bytes {start} to {end} zero", data[:start] + bytes(end - start) + data[end:]

    def _noise(self, data: bytes) -> tuple[str, bytes]:
        start = self.generator.randrange(len(data))
        end = min(len(data), start + self.generator.randrange(1, 64))
        return f"bytes {start} to {end} random", data[:start] + self.generator.randbytes(end - start) + data[end:]

    def _more(self, data: bytes) -> tuple[str, bytes]:
        number = self.generator.randrange(1, 64)
        return f"{number} bytes more", data + self.generator.randbytes(number)


def _backbone_in(file: Path) -> dict[str, bytes]:
    """All but the base's own classifier, of which no digest speaks."""
    return {name: array.tobytes() for name, array in load_file(file).items() if not name.startswith("fc.")}


def _told(code: int | None) -> str:
    return "gives the same result" if code == 0 else f"exits with {code}"
