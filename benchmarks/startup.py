"""Seconds of whole commands, from the start of Python to its end: inspect, diff, verify, pack and apply of a ResNet-50.

    python benchmarks/startup.py --work FOLDER [--rounds 5] [--before CHECKOUT] [--after CHECKOUT] [--out FILE.md]

Each round runs every command of every checkout once, one after the other, so that all see the same load. Random weights
and 64 small images are made in the work folder, and a run of two steps, in which a third of the small weights are then
cut: a mask of two steps alone would be all ones. Prints medians as Markdown; a command that a checkout does not have
stands as "-".
"""

import argparse
import hashlib
import io
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

HERE = Path(__file__).parent.parent
WEIGHTS, RUN, ADAPTER, PLAIN = "resnet50.safetensors", "run", "adapter.safetensors", "plain.safetensors"
COMMANDS = {
    "inspect": f"inspect {ADAPTER}",
    "diff, plain masks": f"diff {PLAIN} {PLAIN}",
    "diff, masks over the base": f"diff {ADAPTER} {PLAIN} --weights {WEIGHTS}",
    "verify --quick": f"verify {ADAPTER} --quick",
    "verify": f"verify {ADAPTER} --weights {WEIGHTS}",
    "apply": f"apply {ADAPTER} --weights {WEIGHTS} --out applied.safetensors --overwrite",
    "apply, all-ones mask": f"apply ones.safetensors --weights {WEIGHTS} --out applied.safetensors --overwrite",
    "pack": f"pack {RUN} --out packed.safetensors --overwrite",
    "pack, all-ones mask": "pack run-of-ones --out packed.safetensors --overwrite",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--before", type=Path)
    parser.add_argument("--after", type=Path, default=HERE)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    work = options.work.resolve()
    prepare(work)
    checkouts = {name: path.resolve() for name in ("before", "after") if (path := getattr(options, name))}
    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    text = ""
    for number in range(options.rounds):
        for command in COMMANDS:
            for name, checkout in checkouts.items():
                took = measured(COMMANDS[command], work, checkout)
                found.setdefault((command, name), []).extend([took] if took else [])
            print(f"round {number + 1} of {options.rounds}: {command}", file=sys.stderr)
        text = "\n".join([*table(found, list(checkouts)), "", f"Medians of {number + 1}.", ""])
        if options.out:  # after each round: they take minutes
            options.out.write_text(text, encoding="utf-8")
    print(text)


def prepare(work: Path) -> None:
    """Weights, images, runs and adapters, made once."""
    if (work / "ones.safetensors").exists():
        return
    (work / "images").mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    save_file(timm.create_model("resnet50", pretrained=False).state_dict(), work / WEIGHTS)
    generator = np.random.default_rng(0)
    for number in range(64):
        pixels = generator.integers(0, 255, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((48, 48)).save(work / "images" / f"{number:02}.jpg")
    few = "--size 32 --steps 2 --batch-size 8 --prototypes 8 --keep last --overwrite"
    for run in ("run-of-ones", RUN):
        smn(f"adapt images --arch resnet50 --weights {WEIGHTS} --out {run} {few}", work, HERE)
    cut_some(work)
    smn(f"pack {RUN} --out {ADAPTER} --overwrite", work, HERE)
    smn(f"pack {RUN} --codec bits --out {PLAIN} --overwrite", work, HERE)
    smn("pack run-of-ones --out ones.safetensors --overwrite", work, HERE)


def cut_some(work: Path) -> None:
    """Put the scores of a third of each tensor's smallest sixth below the threshold."""
    weights, path = load_file(work / WEIGHTS), work / RUN / "checkpoint" / "state.pt"
    threshold = json.loads((work / RUN / "config.json").read_text())["plan"]["threshold"]
    state = torch.load(io.BytesIO(path.read_bytes()[:-32]), weights_only=True)
    generator = torch.Generator().manual_seed(0)
    for name, scores in state["trainer"]["trained"].items():
        sizes = weights[name].abs()
        limit = sizes.reshape(-1)[:: max(sizes.numel() // 100_000, 1)].quantile(1 / 6)
        is_cut = (sizes < limit) & (torch.rand(sizes.shape, generator=generator) < 1 / 3)
        scores.fill_(threshold + 1).masked_fill_(is_cut, threshold - 1)
    torch.save(state, buffer := io.BytesIO())
    path.write_bytes(buffer.getvalue() + hashlib.sha256(buffer.getvalue()).digest())


def smn(words: str, work: Path, checkout: Path) -> int:
    """Exit code of a command of a checkout, run in the work folder."""
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    command = [sys.executable, "-m", "smn_cli", *words.split()]
    return subprocess.run(command, cwd=work, env=environment, capture_output=True, check=False).returncode


def measured(words: str, work: Path, checkout: Path) -> tuple[float, float] | None:
    """Seconds by the clock and of the processors; None if the command fails."""
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    code = smn(words, work, checkout)
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    busy = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return None if code else (seconds, busy)


def table(found: dict[tuple[str, str], list[tuple[float, float]]], checkouts: list[str]) -> list[str]:
    """A row a command: medians by the clock, then of the processors."""
    kinds = ("s", "processor s")
    lines = ["| command | " + " | ".join(f"{name}, {kind}" for kind in kinds for name in checkouts) + " |"]
    lines.append("|---|" + "---|" * len(kinds) * len(checkouts))
    for command in COMMANDS:
        cells = [
            f"{statistics.median(took[kind] for took in rows):.2f}" if (rows := found[command, name]) else "-"
            for kind in range(len(kinds))
            for name in checkouts
        ]
        lines.append(f"| {command} | " + " | ".join(cells) + " |")
    return lines


if __name__ == "__main__":
    main()
