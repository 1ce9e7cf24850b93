"""Files that lie behind right checksums: adapters, cascades, and the state and settings of a run.

An adapter or a cascade gives one of the documented errors, or the network whose digest it holds. A run folder whose
state was sealed anew gives whatever it says, but no unexpected fault; its checksums are no signature.
"""

import copy
import hashlib
import io
import json
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch

from benchmarks.attack.place import Place, Tally
from benchmarks.attack.processes import smn
from benchmarks.fuzz_adapter import FILES, KINDS, ODD, change, outcome
from smn_cli.cascade.file import cascade_from_bytes
from smn_cli.errors import AdapterFileError, MismatchError
from tests.adapters.forging import toy_base
from tests.cascade.small_cascades import toy_cascade

IN_PROCESS = 100
"""Adapters and cascades between two run folders, which take a hundred times as long."""
LIMIT_S = 30
CASCADES = [toy_cascade(statistics=carried).to_bytes() for carried in (False, True)]
BASE = toy_base()


class Mutated:
    """The campaign."""

    def __init__(self, place: Place, generator: random.Random) -> None:
        self.place, self.generator = place, generator
        data = (place.whole / "checkpoint" / "state.pt").read_bytes()
        self.state = torch.load(io.BytesIO(data), weights_only=True)

    def tries(self, tally: Tally) -> Iterator[None]:
        """Files in this process, and now and then a run folder in a fork."""
        signal.signal(signal.SIGALRM, _too_long)
        tally.facts["slowest of a file, ms"] = 0
        folders = (self._of_the_state, self._of_the_bytes, self._of_the_settings, self._of_a_tensor_file)
        number = 0
        while True:
            for _ in range(IN_PROCESS):
                self._file(tally, "adapter", FILES, outcome)
                self._file(tally, "cascade", CASCADES, use_cascade)
                yield
            self._folder(tally, folders[number % len(folders)])
            number += 1
            yield

    def _file(self, tally: Tally, what: str, files: list[bytes], use: Callable[[bytes], str]) -> None:
        kind = self.generator.choice(KINDS)
        data = kind(files, self.generator)
        started = time.perf_counter()
        signal.alarm(LIMIT_S)
        try:
            found = use(data)
        except BaseException as error:
            found = type(error).__name__
            tally.failures.append(f"{what}, {kind.__name__}: {error!r}; as hexadecimal: {data.hex()}")
        finally:
            signal.alarm(0)
        tally.outcomes[f"{what}, {kind.__name__.replace('_', ' ')}: {found}"] += 1
        slowest = max(float(tally.facts["slowest of a file, ms"]), 1000 * (time.perf_counter() - started))
        tally.facts["slowest of a file, ms"] = round(slowest)

    def _folder(self, tally: Tally, damage: Callable[[], str]) -> None:
        place = self.place
        place.clear()
        shutil.copytree(place.whole, place.run)
        how = damage()
        commands = [place.pack(place.run, place.out / "first.safetensors"), place.resume(place.run)]
        for words in commands:
            ended = smn(*words)
            kind = damage.__name__.removeprefix("_of_").replace("_", " ")
            tally.outcomes[f"run folder, {kind}: {words[0]} exits with {ended.code}"] += 1
            tally.check(not (fault := ended.fault(may_not_learn=True)), f"{how}: smn {words[0]}: {fault}")

    def _of_the_state(self) -> str:
        """A value of the state becomes an odd one, or goes, or a tensor has another shape."""
        state = copy.deepcopy(self.state)
        if self.generator.random() < 0.3:  # a run that has some way to go
            state["trainer"]["step"] = self.generator.randrange(12)
        path: list[Any] = []
        place, key = state, self.generator.choice(sorted(state))
        while isinstance(place[key], dict | list) and place[key] and self.generator.random() < 0.9:
            path, place = [*path, key], place[key]
            key = self.generator.choice(sorted(place, key=str) if isinstance(place, dict) else range(len(place)))
        old = place[key]
        place[key] = self._odd(old)
        told = f"state{[*path, key]} is {place[key]!r:.80} instead of {old!r:.80}"
        if isinstance(place, dict) and self.generator.random() < 0.15:
            del place[key]
            told = f"state{[*path, key]} is gone"
        self._seal(state)
        return told

    def _odd(self, old: object) -> object:
        if isinstance(old, torch.Tensor) and self.generator.random() < 0.8:
            ways: list[Callable[[torch.Tensor], torch.Tensor]] = [
                lambda tensor: tensor.flatten()[: len(tensor.flatten()) // 2],
                lambda tensor: tensor.unsqueeze(0),
                lambda tensor: tensor.double(),
                lambda tensor: tensor.to(torch.int64),
                lambda tensor: torch.full_like(tensor, float("nan")) if tensor.is_floating_point() else ~tensor,
                lambda tensor: torch.full_like(tensor, float("-inf")) if tensor.is_floating_point() else tensor - 9,
                lambda tensor: tensor[..., None].expand(*tensor.shape, 2) if tensor.ndim else tensor,
                lambda tensor: torch.empty(0),
                lambda tensor: torch.zeros(tensor.shape).to_sparse(),
            ]
            return self.generator.choice(ways)(old)
        return self.generator.choice([*ODD, float("nan"), float("inf"), torch.ones(3), b"x", 10**30])

    def _of_the_bytes(self) -> str:
        """Bytes of the state's archive are others, and its digest is right."""
        path = self.place.run / "checkpoint" / "state.pt"
        body = bytearray(path.read_bytes()[:-32])
        positions = [self.generator.randrange(len(body)) for _ in range(self.generator.randrange(1, 5))]
        if self.generator.random() < 0.7:  # the pickle stands at the beginning, the directory at the end
            positions = [position % 6000 if position % 2 else len(body) - 1 - position % 3000 for position in positions]
        for position in positions:
            body[position] = self.generator.randrange(256)
        path.write_bytes(bytes(body) + hashlib.sha256(body).digest())
        return f"bytes {positions} of the state"

    def _of_the_settings(self) -> str:
        """config.json holds an odd value, and the state was saved with it."""
        path = self.place.run / "config.json"
        config = json.loads(path.read_text())
        before = json.dumps(config, sort_keys=True)
        change(config, self.generator)
        path.write_text(json.dumps(config))
        state = copy.deepcopy(self.state)
        if self.generator.random() < 0.5:
            state["trainer"]["step"] = self.generator.randrange(12)
        state["sealed"]["config.json"] = hashlib.sha256(path.read_bytes()).hexdigest()
        self._seal(state)
        return f"config.json: {_difference(json.loads(before), config)}"

    def _of_a_tensor_file(self) -> str:
        """Tensors beside the state are others, and all digests are right."""
        path = self.place.run / "checkpoint" / self.generator.choice(("objective.safetensors", "teacher.safetensors"))
        body = bytearray(path.read_bytes()[:-32])
        length = 8 + int.from_bytes(body[:8], "little")
        position = self.generator.randrange(length if self.generator.random() < 0.7 else len(body))
        body[position] = self.generator.randrange(256)
        digest = hashlib.sha256(body).digest()
        path.write_bytes(bytes(body) + digest)
        state = copy.deepcopy(self.state)
        state["trainer"]["step"] = self.generator.randrange(13)
        state["sealed"][f"checkpoint/{path.name}"] = digest.hex()
        self._seal(state)
        return f"byte {position} of {path.name}: {bytes(body[max(0, position - 20) : position + 20])!r}"

    def _seal(self, state: dict[str, Any]) -> None:
        buffer = io.BytesIO()
        torch.save(state, buffer)
        body = buffer.getvalue()
        path = self.place.run / "checkpoint" / "state.pt"
        path.write_bytes(body + hashlib.sha256(body).digest())


def use_cascade(data: bytes) -> str:
    """Read a cascade and do with it all that can be done; anything but the documented errors is raised."""
    try:
        cascade = cascade_from_bytes(data)
        features = torch.randn(4, cascade.router.num_features, generator=torch.Generator().manual_seed(0))
        for expert in cascade.experts:
            expert.rebuild(BASE)  # compares with the digest that it holds
        cascade.combination.combine([features] * (len(cascade.experts) + 1), cascade.router.route(features))
    except (AdapterFileError, MismatchError) as error:
        return type(error).__name__
    return "rebuilt as recorded"


def _too_long(*_: object) -> None:
    raise TimeoutError(f"more than {LIMIT_S} s")


def _difference(old: Any, new: Any, path: str = "") -> str:
    if isinstance(old, dict) and isinstance(new, dict):
        changed = [key for key in {**old, **new} if key not in old or key not in new or old[key] != new[key]]
        return "; ".join(_difference(old.get(key), new.get(key), f"{path}.{key}") for key in changed)
    return f"{path} is {new!r:.80} instead of {old!r:.80}"
