"""Images, weights and a run of a tiny network, and what the commands give over them when nobody disturbs them."""

import hashlib
import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.attack.processes import Ended, forked, smn

ARCH, STEPS, SIZE = "test_resnet", 12, 32
ORPHAN_AGE_S = 3600.0
"""By which what a killed command left is made older, so that the next command takes it for an orphan."""


@dataclass
class Tally:
    """What a campaign saw.

    Attributes:
        outcomes: how often what came of a try.
        failures: in words, with what is needed to see them again.
        facts: other figures.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    facts: dict[str, float | int | str] = field(default_factory=dict)

    def check(self, is_right: bool, otherwise: str) -> None:
        """Note a failure."""
        if not is_right:
            self.failures.append(otherwise)


class Place:
    """A folder to work in, made anew.

    Attributes:
        work: the folder; nothing is written outside of it.
        images, weights: what runs are made of.
        whole: a finished run.
        expected: what commands write, by name of the command: bytes, or digests of the files of a folder.
    """

    def __init__(self, work: Path) -> None:
        shutil.rmtree(work, ignore_errors=True)
        self.work = work.absolute()
        self.images, self.weights = self.work / "images", self.work / "weights.safetensors"
        self.run, self.whole, self.out = self.work / "run", self.work / "whole", self.work / "out"
        self.out.mkdir(parents=True)
        self.images.mkdir()
        levels = np.random.default_rng(0)
        for number in range(48):
            tile = levels.integers(0, 255, (6, 6, 3), dtype=np.uint8)
            Image.fromarray(tile).resize((48, 48), Image.Resampling.BICUBIC).save(self.images / f"{number}.png")
        if (made := forked(self._write_weights)).code:
            sys.exit(f"no weights: {made.said}")
        self.must(*self.adapt(self.whole))
        self.adapter = self.work / "adapter.safetensors"
        self.must(*self.pack(self.whole, self.adapter))
        self.expected = self.adapter.read_bytes()

    def _write_weights(self) -> int:
        import timm
        import torch
        from safetensors.torch import save_file

        torch.manual_seed(0)
        save_file(timm.create_model(ARCH).state_dict(), self.weights)
        return 0

    def must(self, *words: object) -> Ended:
        """Run a command that has to end well."""
        ended = smn(*words)
        if ended.code:
            sys.exit(f"undisturbed, smn {words[0]} ended with {ended.code}: {ended.said}")
        return ended

    def adapt(self, run: Path, *more: object) -> list[object]:
        """The command that makes a run."""
        settings = f"--steps {STEPS} --batch-size 8 --size {SIZE} --keep last --save-every 0 --precision fp32"
        network = ["--arch", ARCH, "--weights", self.weights]
        return ["adapt", self.images, *network, "--out", run, *settings.split(), *_HERE, *more]

    def resume(self, run: Path) -> list[object]:
        """The command that goes on with it, or starts it if there is none."""
        if not (run / "config.json").exists():
            return self.adapt(run)
        return ["adapt", "--resume", "--out", run, *_HERE]

    def pack(self, run: Path, to: Path) -> list[object]:
        """The command that packs it."""
        return ["pack", run, "--out", to, "--overwrite", "--weights", self.weights]

    def packed(self, run: Path) -> bytes | str:
        """The adapter of a run, or why there is none."""
        to = self.out / "packed.safetensors"
        to.unlink(missing_ok=True)
        ended = smn(*self.pack(run, to))
        return f"pack: exit {ended.code}: {ended.said}" if ended.code else to.read_bytes()

    def clear(self) -> None:
        """Nothing is there but what was undisturbed."""
        shutil.rmtree(self.run, ignore_errors=True)
        shutil.rmtree(self.out, ignore_errors=True)
        self.out.mkdir()
        for path in temporaries(self.work):
            remove(path)


_HERE = ("--device", "cpu", "--workers", "0")


def temporaries(folder: Path) -> list[Path]:
    """What commands work on before it takes its name; left over where one was killed."""
    return sorted(path for path in folder.rglob(".*") if path.exists())


def remove(path: Path) -> None:
    """A file, a folder, or nothing."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def grow_old(paths: list[Path]) -> None:
    """As if they had been left long ago."""
    then = time.time() - ORPHAN_AGE_S
    for path in paths:
        os.utime(path, (then, then))


def content_of(path: Path) -> bytes | None:
    """A file's bytes, or of a folder the digest of all that is in it; None if nothing is there."""
    if path.is_dir():
        digest = hashlib.sha256()
        for file in sorted(each for each in path.rglob("*") if each.is_file()):
            digest.update(f"{file.relative_to(path)}\0".encode() + hashlib.sha256(file.read_bytes()).digest())
        return digest.digest()
    return path.read_bytes() if path.exists() else None


def told(contents: Mapping[str, bytes | None], found: bytes | None) -> str:
    """Which of some contents was found."""
    return next((name for name, content in contents.items() if content == found), "something else")
