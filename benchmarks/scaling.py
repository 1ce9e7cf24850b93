"""How the cost of a run grows: with images, with the backbone, with adapters at hand, with processes.

    python benchmarks/scaling.py --images cifar10/train --work FOLDER

Every run is `smn adapt` at 64 px, started as a user would, one thread a process: EfficientNet-Lite0 for images and
processes, ResNets of random weights, batch 16, for the backbone's size. Writes benchmarks/results/scaling.md and .svg.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import matplotlib
import timm
import torch
from matplotlib import pyplot
from resident import measure
from safetensors.torch import save_file

from smn_cli.backbones.packaged import LITE0_ARCH, lite0_weights
from smn_cli.runs.run_config import versions

matplotlib.use("svg")
RESULTS = Path(__file__).parent / "results"
IMAGES = (1_000, 10_000, 50_000)
BACKBONES = ("resnet18", "resnet34", "resnet50", "resnet101")
ADAPTERS = (1, 4, 16)
Row = dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=40)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    lists = image_lists(options.images, options.work)
    least = lists[min(lists)]
    work, steps = options.work, options.steps
    of_images = {count: run(path, work, steps) for count, path in lists.items()}
    of_processes = {number: run(least, work, steps, num_processes=number) for number in (1, 2)}
    adapter = work / "adapter.safetensors"
    command(["pack", work / "run", "--out", adapter, "--overwrite"])
    of_adapters = {int(row["count"]): row for row in measure(LITE0_ARCH, str(lite0_weights()), [adapter], ADAPTERS)}
    few = work / "few.txt"
    few.write_text("".join(least.read_text().splitlines(keepends=True)[:200]))
    of_backbones = dict(backbone_row(arch, few, work) for arch in BACKBONES)
    text = "\n".join(report(steps, of_images, of_processes, of_backbones, of_adapters))
    (RESULTS / "scaling.md").write_text(text + "\n")
    draw(steps, of_images, of_processes, of_backbones, of_adapters)
    print(text)


def image_lists(folder: Path, work: Path) -> dict[int, Path]:
    """Lists of images, evenly from the folder, by their length."""
    files = sorted(str(path.resolve()) for path in folder.rglob("*.*"))
    lists = {count: work / f"{count}.txt" for count in IMAGES if count <= len(files)}
    for count, path in lists.items():
        path.write_text("\n".join(files[:: len(files) // count][:count]) + "\n")
    return lists


def run(
    images: Path,
    work: Path,
    num_steps: int,
    *,
    num_processes: int = 1,
    arch: str = LITE0_ARCH,
    weights: Path | None = None,
    batch_size: int = 64,
) -> Row:
    """One run; seconds before the first step and after the last, seconds a step, images/s of the steps."""
    started = time.monotonic()
    words = ["adapt", images, "--arch", arch, "--weights", weights or lite0_weights(), "--size", 64, "--steps",
             num_steps, "--batch-size", batch_size, "--out", work / "run", "--overwrite", "--workers", 0,
             "--json", work / "run.json", "--keep", "last"]  # fmt: skip
    command(words, num_processes, SMN_CACHE_HOME=str(work / "cache"))
    steps = json.loads((work / "run.json").read_text())["seconds"]
    whole = time.monotonic() - started
    return {
        "whole": whole,
        "around": whole - steps,
        "step": steps / num_steps,
        "images": batch_size * num_steps / steps,
    }


def command(words: list[object], num_processes: int = 1, **environment: str) -> None:
    """An smn command with one thread, or a team of them."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(num_processes)]
    start = [sys.executable, *(launcher if num_processes > 1 else []), "-m", "smn_cli"]
    variables = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    subprocess.run([*start, *map(str, words)], check=True, capture_output=True, env=variables)


def backbone_row(arch: str, images: Path, work: Path) -> tuple[int, Row]:
    """Number of weights of a ResNet, and a short run of it."""
    torch.manual_seed(0)
    model = timm.create_model(arch)
    weights = work / f"{arch}.safetensors"
    save_file(model.state_dict(), weights)
    row = run(images, work, 6, arch=arch, weights=weights, batch_size=16)
    return sum(parameter.numel() for parameter in model.parameters()), row


def slope(rows: dict[int, Row], what: str) -> float:
    """Exponent of growth between the first and the last point: 1 is proportional, 0 is none."""
    (first, start), *_, (last, end) = rows.items()
    return math.log(end[what] / start[what]) / math.log(last / first)


def report(
    steps: int,
    of_images: dict[int, Row],
    of_processes: dict[int, Row],
    of_backbones: dict[int, Row],
    of_adapters: dict[int, Row],
) -> list[str]:
    """Markdown, line by line."""
    lines = [
        f"`python benchmarks/scaling.py --images cifar10/train --work FOLDER --steps {steps}`; seed 0; "
        f"{os.cpu_count()} shared CPU cores, one thread a process; {versions()}\n",
        "| images | processes | whole run | before and after the steps | a step | images/s |",
        "|---|---|---|---|---|---|",
    ]
    rows = [(c, 1, r) for c, r in of_images.items()] + [(min(of_images), n, r) for n, r in of_processes.items()]
    lines += [
        f"| {count:,} | {number} | {r['whole']:.0f} s | {r['around']:.0f} s | {r['step']:.2f} s | {r['images']:.0f} |"
        for count, number, r in rows
    ]
    lines += ["", "| backbone | weights | a step of 16 |", "|---|---|---|"]
    named = zip(BACKBONES, of_backbones.items(), strict=True)
    lines += [f"| {arch} | {count / 1e6:.1f} M | {row['step']:.2f} s |" for arch, (count, row) in named]
    lines += ["", "| adapters of Lite0 at hand | memory of all | first use | switch |", "|---|---|---|---|"]
    lines += [
        f"| {count} | {r['bytes'] / 1e6:.1f} MB | {r['first use']:.2f} s | {r['switch']:.3f} s |"
        for count, r in of_adapters.items()
    ]
    more = of_processes[1]["step"] / of_processes[2]["step"]
    lines.append(
        f"\nGrowth, as a power: the whole run with the number of images {slope(of_images, 'whole'):.2f}; a step with "
        f"the number of weights {slope(of_backbones, 'step'):.2f}; the memory of adapters with their number "
        f"{slope(of_adapters, 'bytes'):.2f}, switching {slope(of_adapters, 'switch'):.2f}. Two processes take "
        f"{more:.2f} times the steps of one in the same time."
    )
    return lines


def draw(
    steps: int,
    of_images: dict[int, Row],
    of_processes: dict[int, Row],
    of_backbones: dict[int, Row],
    of_adapters: dict[int, Row],
) -> None:
    """The same as a picture."""
    figure, ((first, second), (third, fourth)) = pyplot.subplots(2, 2, figsize=(8, 6), layout="constrained")
    counts = list(of_images)
    first.loglog(counts, [r["whole"] for r in of_images.values()], "o-", label="whole run")
    first.loglog(counts, [r["around"] for r in of_images.values()], "s--", label="before and after the steps")
    first.set(xlabel="images", ylabel="seconds", title=f"{steps} steps of 64", ylim=(1, None))
    first.legend()
    second.bar([str(number) for number in of_processes], [r["images"] for r in of_processes.values()])
    second.set(xlabel="processes of one thread", ylabel="images/s")
    third.plot([count / 1e6 for count in of_backbones], [r["step"] for r in of_backbones.values()], "o-")
    third.set(xlabel="million weights", ylabel="seconds a step of 16", xlim=(0, 1.3e-6 * max(of_backbones)))
    third.set_ylim(0)
    for arch, (count, row) in zip(BACKBONES, of_backbones.items(), strict=True):
        third.annotate(arch, (count / 1e6, row["step"]), textcoords="offset points", xytext=(5, -11))
    fourth.plot(list(of_adapters), [r["bytes"] / 1e6 for r in of_adapters.values()], "o-", label="memory of all, MB")
    fourth.plot(list(of_adapters), [r["switch"] * 1e3 for r in of_adapters.values()], "s--", label="switch, ms")
    fourth.set(xlabel="adapters of Lite0 at hand", ylim=(0, None))
    fourth.legend()
    figure.savefig(RESULTS / "scaling.svg")


if __name__ == "__main__":
    main()
