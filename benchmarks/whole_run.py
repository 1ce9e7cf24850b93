"""Where a whole run's time goes: looking, judging, steps, waiting for views, report, beside the steps alone.

    python benchmarks/whole_run.py --images FOLDER --work FOLDER --numbers 1000 10000 100000
    python benchmarks/whole_run.py --images FOLDER --work FOLDER --numbers 1000 --seeds 0 1 2 --options "--size 96"

Each run is `smn adapt --no-cache` over so many images of FOLDER, linked under new names where there are too few; its
length is the default. EfficientNet-Lite0. Every part counts its own time, without that of the parts inside it: by the
clock, and in brackets of the processors. Prints a Markdown table, a row a run.
"""

import argparse
import itertools
import os
import shutil
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest.mock import patch

from smn_cli.process import settle_process

settle_process()  # as the command does, before torch is loaded

from smn_cli.backbones.packaged import LITE0_ARCH, lite0_weights  # noqa: E402
from smn_cli.cli import main as smn  # noqa: E402
from smn_cli.data.images.find import find_images  # noqa: E402
from smn_cli.data.views.loader import ViewLoader  # noqa: E402
from smn_cli.training import image_split, session, setup, trainer  # noqa: E402

PARTS = (
    (image_split, "check_for_run", "checking"),
    (setup, "teacher_space", "looking"),
    (session, "make_health_judge", "base"),
    (session, "first_alarms", "alarms"),
    (session.Session, "_evaluate", "judging"),
    (trainer.Trainer, "take_step", "steps"),
    (import_module("smn_cli.commands.adapt"), "conclude_run", "report"),
)
"""What is timed, under which name."""
NAMES = ("checking", "looking", "base", "alarms", "waiting", "steps", "judging", "report", "other")


class Clock:
    """Seconds by part; a part that begins inside another stops it."""

    def __init__(self) -> None:
        self.wall: dict[str, float] = defaultdict(float)
        self.busy: dict[str, float] = defaultdict(float)
        self._open = ["other"]
        self._last = self._now()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        self._book()
        self._open.append(name)
        try:
            yield
        finally:
            self._book()
            self._open.pop()

    def timed(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        def run(*arguments: Any, **named: Any) -> Any:
            with self.part(name):
                return function(*arguments, **named)

        return run

    def waited(self, function: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
        """The same for what a generator takes to give the next."""

        def run(*arguments: Any, **named: Any) -> Iterator[Any]:
            batches = function(*arguments, **named)
            while True:
                with self.part("waiting"):
                    batch = next(batches, None)
                if batch is None:
                    return
                yield batch

        return run

    def stop(self) -> None:
        """Count the time since the last part, too."""
        self._book()

    def _book(self) -> None:
        now = self._now()
        self.wall[self._open[-1]] += now[0] - self._last[0]
        self.busy[self._open[-1]] += now[1] - self._last[1]
        self._last = now

    def _now(self) -> tuple[float, float]:
        return time.perf_counter(), time.process_time()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--numbers", type=int, nargs="+", default=[1000])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--options", default="", help="further words of smn adapt")
    options = parser.parse_args()
    print(f"| images | seed | {' | '.join(NAMES)} | whole, s | whole / steps | judging | processor s |")
    print("|" + "---|" * (len(NAMES) + 6))
    for number, seed in itertools.product(options.numbers, options.seeds):
        images = linked(options.images, options.work / str(number), number)
        words = f"--arch {LITE0_ARCH} --weights {lite0_weights()} --seed {seed} {options.options}"
        clock = timed_run(images, options.work / "run", words)
        whole, steps = sum(clock.wall.values()), clock.wall["steps"]
        cells = " | ".join(f"{clock.wall[name]:.1f} ({clock.busy[name]:.1f})" for name in NAMES)
        ratio, share = whole / steps if steps else float("nan"), (clock.wall["judging"] + clock.wall["base"]) / whole
        busy = sum(clock.busy.values())
        print(f"| {number:,} | {seed} | {cells} | {whole:.0f} | {ratio:.2f} | {share:.0%} | {busy:.0f} |", flush=True)


def linked(images: Path, folder: Path, number: int) -> Path:
    """So many images in one folder, as links to files; under further names where there are too few."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    found = find_images([images])
    for position, path in zip(range(number), itertools.cycle(found)):
        os.link(path, folder / f"{position:06}{path.suffix}")
    return folder


def timed_run(images: Path, out: Path, words: str) -> Clock:
    """One run of `smn adapt`, taken apart.

    Args:
        images: its folder.
        out: its run folder, overwritten.
        words: further ones of the command.
    """
    clock = Clock()
    with ExitStack() as after:
        for place, name, label in PARTS:
            after.enter_context(patch.object(place, name, clock.timed(getattr(place, name), label)))
        batches = clock.waited(ViewLoader.batches)
        after.enter_context(patch.object(ViewLoader, "batches", batches))
        try:
            smn(["adapt", str(images), "--no-cache", "--out", str(out), "--overwrite", *words.split()])
        except SystemExit as end:
            if end.code:
                sys.exit(f"smn adapt {images} {words} ended with {end.code}")
    clock.stop()
    return clock


if __name__ == "__main__":
    main()
