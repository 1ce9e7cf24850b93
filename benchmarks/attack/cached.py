"""Evaluations from one cache of features by eight processes at once: no wrong hit, no torn file.

    python -m benchmarks.attack --work FOLDER --campaign cached --tries 10 --seconds 3600

A try is a thousand evaluations, every tenth by `smn_cli.evaluate`, the others by its second half: key, features from
the cache, scores. One of the processes has a cache that is too small, so that entries vanish and are made again while
others read them. In every third try, the first among them, one process damages entries, and one is killed.
"""

import hashlib
import json
import os
import random
import shutil
import signal
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load, load_file
from torch import Tensor

import smn_cli
import smn_cli.api
from benchmarks.attack.place import ARCH, SIZE, Place, Tally
from smn_cli.cascade.blocks import network_identity
from smn_cli.data.labels.eval_split import load_labeled_split
from smn_cli.evaluation.compare import ScoringProtocol, compare, score
from smn_cli.features.cache import MAX_BYTES, FeatureCache
from smn_cli.features.embed import Embedding, labeled_features
from smn_cli.user_models import base_of

PROCESSES, EACH = 8, 125
SPLITS = (4, 8, 12, 16)
"""Training images of the evaluations, of which each has entries of its own."""
LIMIT_S = 600


class Cached:
    """The campaign."""

    def __init__(self, place: Place, generator: random.Random) -> None:
        self.place, self.generator = place, generator
        self.data, self.folder = place.work / "labeled", place.work / "features"
        for number, path in enumerate(sorted(place.images.iterdir())):
            half = "train" if number % 3 else "test"
            target = self.data / half / str(number % 2) / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
        time.sleep(2.5)  # files that were changed just now are not cached
        self.model = timm.create_model(ARCH)
        self.model.load_state_dict(load_file(place.weights))
        self.model.eval()
        self.splits = {number: load_labeled_split(self.data, max_train=number) for number in SPLITS}
        adapter = smn_cli.load_adapter(place.adapter)
        self.preprocessing, self.networks = adapter.preprocessing, []
        for change in (None, adapter):
            backbone = base_of(self.model)
            backbone.model.to(memory_format=torch.channels_last)
            if change is not None:
                change.apply(backbone.model)
            self.networks.append((backbone.model, network_identity(backbone)))
        self.known: dict[str, str] = {}
        self._use(MAX_BYTES, Counter(), learns=True)
        self.expected = {number: (self._evaluate(number), self._evaluate_half(number)) for number in SPLITS}
        self.entry_bytes = max(path.stat().st_size for path in self.folder.iterdir())

    def tries(self, tally: Tally) -> Iterator[None]:
        """Eight processes, a hundred and twenty-five evaluations each."""
        number = 0
        while True:
            is_hostile = number % 3 == 0
            shutil.rmtree(self.folder, ignore_errors=True)
            started = time.monotonic()
            seeds = [self.generator.randrange(1 << 30) for _ in range(PROCESSES)]
            pids = [self._start(place, seed, is_hostile=is_hostile) for place, seed in enumerate(seeds)]
            if is_hostile:
                time.sleep(self.generator.uniform(0.5, 3))
                os.kill(pids[-1], signal.SIGKILL)
            self._gather(tally, pids, started, is_hostile=is_hostile)
            number += 1
            yield

    def _start(self, place: int, seed: int, *, is_hostile: bool) -> int:
        pid = os.fork()
        if pid == 0:
            self._work(place, random.Random(seed), is_hostile=is_hostile)
        return pid

    def _work(self, place: int, generator: random.Random, *, is_hostile: bool) -> NoReturn:
        seen: Counter[str] = Counter()
        code = 1
        try:
            few = 6 * self.entry_bytes
            self._use(few if place == 0 else MAX_BYTES, seen, is_hostile=is_hostile)
            for number in range(EACH):
                if is_hostile and place == 3 and generator.random() < 0.5:
                    _damage(self.folder, generator)
                max_train = generator.choice(SPLITS)
                seen["evaluations"] += 1
                evaluate = self._evaluate_half if number % 10 else self._evaluate
                seen["wrong scores"] += evaluate(max_train) not in self.expected[max_train]
            code = 0
        except BaseException:
            traceback.print_exc()  # else it would be lost with the process
        finally:
            (self.place.out / f"seen{place}.json").write_text(json.dumps(seen))
            os._exit(code)

    def _gather(self, tally: Tally, pids: list[int], started: float, *, is_hostile: bool) -> None:
        codes = []
        for pid in pids:
            while (ended := os.waitpid(pid, os.WNOHANG))[0] == 0:
                time.sleep(0.05)
                if time.monotonic() - started > LIMIT_S:
                    os.kill(pid, signal.SIGKILL)
                    tally.failures.append(f"a process did not end in {LIMIT_S} s")
            codes.append(os.waitstatus_to_exitcode(ended[1]))
        kind = ", entries damaged and a process killed" if is_hostile else ""
        for place in range(PROCESSES):
            path = self.place.out / f"seen{place}.json"
            seen = json.loads(path.read_text()) if path.exists() else {}
            for name, count in seen.items():
                tally.outcomes[f"{name}{kind}"] += count
            path.unlink(missing_ok=True)
            for name in ("wrong scores", "wrong hits", *([] if is_hostile else ["torn files"])):
                tally.check(not seen.get(name), f"process {place}: {seen.get(name)} {name}{kind}")
        tally.check(set(codes[: -1 if is_hostile else None]) == {0}, f"exit codes {codes}{kind}")

    def _evaluate(self, max_train: int) -> str:
        """The road of `smn eval`, in this process; scores as text."""
        found = smn_cli.evaluate(
            self.model, self.data, self.place.adapter, size=SIZE, k=(1, 3), max_train=max_train, cache=True
        )
        return json.dumps(found.to_json(), sort_keys=True)

    def _evaluate_half(self, max_train: int) -> str:
        """The same from the features on."""
        scores, split = [], self.splits[max_train]
        embedding = Embedding(self.preprocessing, cache=self.cache())
        for model, identity in self.networks:
            features = labeled_features(model, split, embedding, identity=lambda known=identity: known)  # type: ignore[misc]
            scores.append(score(features, ScoringProtocol(knn=True, linear=False, ks=(1, 3))))
        return json.dumps(compare(*scores).to_json(), sort_keys=True)

    def _use(self, max_bytes: int, seen: "Counter[str]", *, learns: bool = False, is_hostile: bool = False) -> None:
        """In a process: look into every entry as it is read."""
        folder, known = self.folder, self.known

        class Watched(FeatureCache):
            def __init__(self) -> None:
                super().__init__(folder, max_bytes=max_bytes)

            def load(self, key: str, num_images: int) -> Tensor | None:
                seen["torn files"] += _is_torn(self._path(key))
                found = super().load(key, num_images)
                seen["hits" if found is not None else "misses"] += 1
                if found is not None and _digest(found) != known.get(key):
                    seen["wrong hits"] += 1
                return found

            def save(self, key: str, features: Tensor) -> None:
                if learns:
                    known[key] = _digest(features)
                super().save(key, features)

        self.cache: Callable[[], FeatureCache] = Watched
        replaced: Any = smn_cli.api
        replaced.FeatureCache = Watched


def _is_torn(path: Path) -> bool:
    try:
        data = path.read_bytes()
    except OSError:
        return False
    try:
        load(data)
    except SafetensorError:
        return True
    return False


def _digest(features: Tensor) -> str:
    return hashlib.sha256(features.contiguous().numpy().tobytes()).hexdigest()


def _damage(folder: Path, generator: random.Random) -> None:
    """Flip a bit of an entry, or cut it."""
    entries = list(folder.glob("*.safetensors"))
    if not entries:
        return
    path = generator.choice(entries)
    try:
        data = bytearray(path.read_bytes())
        if generator.random() < 0.5:
            bit = generator.randrange(8 * len(data))
            data[bit // 8] ^= 1 << bit % 8
        else:
            del data[generator.randrange(len(data)) :]
        path.write_bytes(data)
    except (OSError, ValueError):  # another process was faster
        return
