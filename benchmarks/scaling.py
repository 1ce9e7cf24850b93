"""How the cost of a run grows: with the number of images, and with processes.

    python benchmarks/scaling.py --images cifar10/train --work FOLDER

Every run is `smn adapt` on EfficientNet-Lite0 at 64 px, started as a user would; the same steps for every number of
images, one thread a process. Writes benchmarks/results/scaling.md and scaling.svg.
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
from matplotlib import pyplot

from smn_cli.backbones.packaged import LITE0_ARCH, lite0_weights
from smn_cli.training.record import versions

matplotlib.use("svg")
RESULTS = Path(__file__).parent / "results"
COUNTS = (1_000, 10_000, 50_000)


def run(images: Path, work: Path, num_steps: int, num_processes: int) -> dict[str, float]:
    """One run; seconds before the first step and after the last, seconds a step, images/s of the steps."""
    started = time.monotonic()
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(num_processes)]
    words = ["-m", "smn_cli", "adapt", images, "--arch", LITE0_ARCH, "--weights", lite0_weights(), "--size", "64",
             "--steps", num_steps, "--out", work / "run", "--overwrite", "--workers", 0, "--json", work / "run.json",
             "--keep", "last"]  # fmt: skip
    command = [sys.executable, *(launcher if num_processes > 1 else []), *map(str, words)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "SMN_CACHE_HOME": str(work / "cache")}
    subprocess.run(command, check=True, capture_output=True, env=environment)
    steps = json.loads((work / "run.json").read_text())["seconds"]
    whole = time.monotonic() - started
    return {"whole": whole, "around": whole - steps, "step": steps / num_steps, "images": 64 * num_steps / steps}


def slope(xs: list[float], ys: list[float]) -> float:
    """Exponent of growth between the first and the last point: 1 is proportional, 0 is none."""
    return math.log(ys[-1] / ys[0]) / math.log(xs[-1] / xs[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=40)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    files = sorted(str(path.resolve()) for path in options.images.rglob("*.*"))
    lists = {count: options.work / f"{count}.txt" for count in COUNTS if count <= len(files)}
    for count, path in lists.items():
        path.write_text("\n".join(files[:: len(files) // count][:count]) + "\n")
    of_images = {count: run(path, options.work, options.steps, 1) for count, path in lists.items()}
    least = min(lists)
    of_processes = {number: run(lists[least], options.work, options.steps, number) for number in (1, 2)}
    lines = [
        f"`python benchmarks/scaling.py --images cifar10/train --work FOLDER --steps {options.steps}`; seed 0; "
        f"{os.cpu_count()} shared CPU cores, one thread a process; {versions()}\n",
        "| images | processes | whole run | before and after the steps | a step | images/s |",
        "|---|---|---|---|---|---|",
    ]
    rows = [(c, 1, r) for c, r in of_images.items()] + [(least, n, r) for n, r in of_processes.items()]
    lines += [
        f"| {count:,} | {number} | {r['whole']:.0f} s | {r['around']:.0f} s | {r['step']:.2f} s | {r['images']:.0f} |"
        for count, number, r in rows
    ]
    counts = list(of_images)
    growth = slope([float(c) for c in counts], [r["whole"] for r in of_images.values()])
    more = of_processes[1]["step"] / of_processes[2]["step"]
    lines.append(
        f"\nThe whole run grows with the number of images to the power {growth:.2f}; two processes take "
        f"{more:.2f} times the steps of one in the same time."
    )
    (RESULTS / "scaling.md").write_text("\n".join(lines) + "\n")
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(8, 3), layout="constrained")
    left.loglog(counts, [r["whole"] for r in of_images.values()], "o-", label="whole run")
    left.loglog(counts, [r["around"] for r in of_images.values()], "s--", label="before and after the steps")
    left.set(xlabel="images", ylabel="seconds", title=f"{options.steps} steps of 64")
    left.legend()
    right.bar([str(number) for number in of_processes], [r["images"] for r in of_processes.values()])
    right.set(xlabel="processes of one thread", ylabel="images/s")
    figure.savefig(RESULTS / "scaling.svg")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
