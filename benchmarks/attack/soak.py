"""One process that adapts, applies, removes and merges again and again: memory stays, weights come back bit for bit.

python -m benchmarks.attack --work FOLDER --campaign soak --tries 2000 --seconds 3600
"""

import gc
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import load_file

import smn_cli
from benchmarks.attack.place import ARCH, SIZE, Place, Tally
from smn_cli.adapters.fingerprint import fingerprint

ADAPT_EVERY, WARM_UP = 10, 200
"""Of that many rounds one adapts; memory is compared from the second number on."""
MOST_MIB = 16
"""That memory may grow by in all rounds after."""


class Soak:
    """The campaign: a try is a round."""

    def __init__(self, place: Place, generator: random.Random) -> None:
        self.place, self.generator = place, generator
        self.model = timm.create_model(ARCH)
        self.model.load_state_dict(load_file(place.weights))
        self.model.eval()
        self.images = torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
        self.before, self.outputs = self._digest(), self._run()
        self.adapters = [smn_cli.load_adapter(place.adapter)]
        self.adapted = {id(self.adapters[0]): self._applied(self.adapters[0])}

    def tries(self, tally: Tally) -> Iterator[None]:
        """Rounds."""
        number, first = 0, 0.0
        tally.facts["adapts"] = 0
        while True:
            if number % ADAPT_EVERY == 0:
                self._adapt(number)
                tally.facts["adapts"] = int(tally.facts["adapts"]) + 1
            self._round(tally)
            number += 1
            if number in (1, WARM_UP) or number % WARM_UP == 0:
                gc.collect()
                now = _resident_mib()
                tally.facts[f"MiB after {number} rounds"] = now
                first = now if number == WARM_UP else first
                tally.check(number <= WARM_UP or now - first < MOST_MIB, f"memory grew from {first} to {now} MiB")
                tally.facts["open files"] = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
            yield

    def _round(self, tally: Tally) -> None:
        adapter = self.generator.choice(self.adapters)
        tally.check(self._applied(adapter) == self.adapted[id(adapter)], "an adapter gave another network")
        adapter.apply(self.model)
        if self.generator.random() < 0.5:  # another one in its place, without taking it off
            other = self.generator.choice(self.adapters)
            smn_cli.remove_adapter(self.model)
            other.apply(self.model)
        smn_cli.remove_adapter(self.model)
        tally.check(self._digest() == self.before, "the base is not what it was")
        tally.check(self._run() == self.outputs, "the base does not compute what it did")
        tally.outcomes["applied and removed"] += 1

    def _applied(self, adapter: smn_cli.Adapter) -> str:
        adapter.apply(self.model)
        digest = self._digest()
        adapter.remove(self.model)
        return digest

    def _adapt(self, seed: int) -> None:
        adapter = smn_cli.adapt(
            self.model, self.place.images, steps=2, batch_size=8, size=SIZE, keep="last", precision="fp32", seed=seed
        )
        path = self.place.out / "a.safetensors"
        smn_cli.save_adapter(adapter, path)
        kept = smn_cli.load_adapter(path)
        if len(self.adapters) > 4:
            del self.adapted[id(self.adapters.pop(1))]
        self.adapters.append(kept)
        self.adapted[id(kept)] = self._applied(kept)

    def _digest(self) -> str:
        return fingerprint(self.model.state_dict()).digest

    def _run(self) -> bytes:
        with torch.inference_mode():
            found: Any = self.model(self.images)
        return bytes(found.numpy().tobytes())


def _resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20), 1)
