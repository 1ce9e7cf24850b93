"""What a GPU makes of it, in a call of about ten minutes: steps, memory, share of the card, a run, the paper's budget.

    python benchmarks/gpu.py --images FOLDER --work FOLDER
    python benchmarks/gpu.py --device cpu --archs test_resnet --batches 8 --size 64 --paper-arch ""  # a rehearsal
    python benchmarks/gpu.py --device cpu --archs resnet18 --batches 16 --modes fp32 --in-turn       # beside other jobs

Tables as Markdown on stdout; every number also in WORK/gpu.json. Steps are those of the default recipe at the
backbone's own size, on views that lie on the card: ordinary fine-tuning of the same weights, the mask (whole, late
blocks alone, and those over what is kept of the blocks before) and the plain wrapper of `benchmarks/speed.py`. The
share of the card is the forward pass's operations (torch's counter) times three, by the seconds of a step of the whole
mask, over the rate of a large product of bf16 matrices measured first. With --images a default run over the folder is
timed by its parts, and how long its steps wait for views. What the paper's recipe (ResNet-50, 50,000 images, 150
epochs) would take is reckoned from its own steps; to train it in pieces of ten minutes, each going on from the last:

    smn adapt CIFAR/train --recipe paper --arch resnet50 --weights FILE --out RUN    # under `timeout -s INT 590`
    smn adapt --resume --out RUN                                                     # as often as it takes

Nothing is begun after --minutes; what was not reached is named.
"""

import argparse
import gc
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import timm
import torch
from native_step import METHODS, UNFOLDED, make_batch, make_step
from safetensors.torch import save_file
from speed import peak_bytes
from torch.utils.flop_counter import FlopCounterMode
from whole_run import timed_run

from smn_cli.backbones.loading import feature_width
from smn_cli.backbones.packaged import LITE0_ARCH, lite0_weights
from smn_cli.config.options import AdaptOptions
from smn_cli.data.images.find import find_images
from smn_cli.data.preprocessing import Preprocessing
from smn_cli.data.views.augmentation import draw_changes
from smn_cli.data.views.loader import ViewBatch
from smn_cli.objectives.swapped import SwappedObjective
from smn_cli.recipes import Precision
from smn_cli.runs.run_config import versions
from smn_cli.runs.run_folder import RunFolder
from smn_cli.seeding import step_generator
from smn_cli.training.planning import make_plan
from smn_cli.training.trainer import Trainer, make_source

ARCHS = ("resnet50", "vit_small_patch16_224", "vit_base_patch32_224", "convnext_tiny")
PAPER_IMAGES, PAPER_BATCH = 50_000, 64
"""Of the paper's runs on CIFAR."""


def asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--archs", nargs="+", default=ARCHS)
    parser.add_argument("--batches", nargs="+", type=int, default=[64, 256, 512])
    parser.add_argument("--modes", nargs="+", default=["fp32", "bf16", "bf16 compiled"])
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--in-turn", action="store_true", help="methods step in turn, on a shared machine; no memory")
    parser.add_argument("--memory", action="store_true", help="on a CPU: the most that a process of each method held")
    parser.add_argument("--peak", action="store_true", help="be such a process")
    parser.add_argument("--methods", nargs="+", choices=[*METHODS, *UNFOLDED], default=METHODS)
    parser.add_argument("--late", type=float, help="of a late mask: share of the weights in blocks that stay whole")
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--arch", default="tf_efficientnet_lite0", help="of the run over --images")
    parser.add_argument("--run-options", default="", help="further words of that run")
    parser.add_argument("--paper-arch", default="resnet50", help="of the paper's recipe; empty for none")
    parser.add_argument("--workers", type=int, default=12)
    parser.add_argument("--work", type=Path, default=Path("gpu_work"))
    return parser.parse_args()


def main() -> None:
    options = asked()
    if options.peak:
        step_cost(options.archs[0], options.modes[0], options.batches[0], options.methods[0], options)
        print(peak_bytes())
        return
    options.end = time.monotonic() + 60 * options.minutes
    options.work.mkdir(parents=True, exist_ok=True)
    device = torch.device(options.device)
    found: dict[str, Any] = {
        "versions": versions(),
        "device": name_of(device),
        "rate": matrix_rate(device),
        "steps": [],
    }
    print(f"{found['device']}; {found['versions']}; bf16 matrices {found['rate'] / 1e12:.1f} TFLOP/s\n", flush=True)
    if options.images is not None:
        found["run"] = whole_run(options)
        print(run_table(found["run"]), flush=True)
    if options.paper_arch and time.monotonic() < options.end:
        found["paper"] = [paper_budget(precision, options) for precision in ("fp32", "bf16")]
        print("\n".join(map(paper_line, found["paper"])) + "\n", flush=True)
    keep(found, options)
    print(HEAD, flush=True)
    for arch, mode, batch in ((a, m, b) for a in options.archs for m in options.modes for b in options.batches):
        if time.monotonic() > options.end:
            print(f"\nnot reached: {arch}, {mode}, batch {batch} and what follows")
            break
        row = measure(arch, mode, batch, found["rate"], options)
        found["steps"].append(row)
        print(line_of(row), flush=True)
        keep(found, options)


def keep(found: dict[str, Any], options: argparse.Namespace) -> None:
    """What was found so far, where a call that is cut short leaves it."""
    (options.work / "gpu.json").write_text(json.dumps(found, indent=1))


def name_of(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"


def waited(device: torch.device) -> float:
    """The time, once the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def matrix_rate(device: torch.device) -> float:
    """Operations a second of a product of two large bf16 matrices, the best of five."""
    side = 8192 if device.type == "cuda" else 512
    one, other = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    best = float("inf")
    for _ in range(5):
        started = waited(device)
        one @ other
        best = min(best, waited(device) - started)
    return 2 * side**3 / best


def measure(arch: str, mode: str, batch_size: int, rate: float, options: argparse.Namespace) -> dict[str, Any]:
    """Median seconds and peak bytes of a step by method; None where the memory did not do, or there is none."""
    device = torch.device(options.device)
    row: dict[str, Any] = {"arch": arch, "mode": mode, "batch": batch_size, "share": None}
    row |= {name: dict.fromkeys((*METHODS, *options.methods)) for name in ("seconds", "bytes")}
    if options.memory and device.type == "cpu":
        row["bytes"] |= {method: peak_of(arch, mode, batch_size, method, options) for method in options.methods}
    if options.in_turn:
        row["seconds"] |= step_costs_in_turn(arch, mode, batch_size, options)
        return row
    for method in options.methods:
        if method in ("plain wrapper", "late mask, cached") and mode.endswith("compiled"):  # which is nobody's way
            row["seconds"][method] = row["bytes"][method] = None
            continue
        try:
            row["seconds"][method], peak = step_cost(arch, mode, batch_size, method, options)
            row["bytes"][method] = peak or row["bytes"][method]
        except torch.OutOfMemoryError:
            row["seconds"][method] = row["bytes"][method] = None
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
    operations = 3 * batch_size * forward_operations(arch, options.size)
    tuned = row["seconds"]["mask"]
    row["share"] = None if tuned is None else operations / tuned / rate
    return row


def step_costs_in_turn(arch: str, mode: str, batch_size: int, options: argparse.Namespace) -> dict[str, float]:
    """Median seconds of a step by method: one step of each, then the next of each, so that all see the same load."""
    device = torch.device(options.device)
    steps = {method: make_step(arch, mode, batch_size, method, options) for method in options.methods}
    batch = make_batch(batch_size, options.size, device)
    taken: dict[str, list[float]] = {method: [] for method in steps}
    for _ in range(2 + options.rounds):
        for method, step in steps.items():
            started = waited(device)
            step(batch)
            taken[method].append(waited(device) - started)
    return {method: statistics.median(seconds[2:]) for method, seconds in taken.items()}


def step_cost(arch: str, mode: str, batch_size: int, method: str, options: argparse.Namespace) -> tuple[float, int]:
    device = torch.device(options.device)
    step, batch = make_step(arch, mode, batch_size, method, options), make_batch(batch_size, options.size, device)
    for _ in range(3):
        step(batch)  # compiles, chooses kernels, fills the allocator
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    taken = []
    for _ in range(options.rounds):
        started = waited(device)
        step(batch)
        taken.append(waited(device) - started)
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
    return statistics.median(taken), peak


def peak_of(arch: str, mode: str, batch_size: int, method: str, options: argparse.Namespace) -> int:
    """Most bytes that a process of its own held in a few steps, Python and torch included."""
    words = f"--peak --device cpu --archs {arch} --batches {batch_size} --size {options.size} --rounds 3"
    words += "" if options.late is None else f" --late {options.late:g}"
    command = [sys.executable, __file__, *words.split(), "--modes", mode, "--methods", method]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout.split()[-1])


def forward_operations(arch: str, size: int) -> int:
    """Of one image."""
    model = timm.create_model(arch, num_classes=0).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 3, size, size))
    return int(counter.get_total_flops())


def whole_run(options: argparse.Namespace) -> dict[str, Any]:
    """Seconds of a default run by part."""
    if options.arch == LITE0_ARCH:
        weights = lite0_weights()
    else:  # random ones cost the same
        save_file(timm.create_model(options.arch).state_dict(), weights := options.work / "random.safetensors")
    words = f"--arch {options.arch} --weights {weights} --device {options.device} --workers {options.workers}"
    clock = timed_run(
        options.images, options.work / "run", f"{words} --keep last --save-every 3600 {options.run_options}"
    )
    plan = RunFolder.open(options.work / "run").read_config()["plan"]
    names = ("num_steps", "batch_size", "precision")
    return {"images": len(find_images([options.images])), "seconds": clock.wall, **{name: plan[name] for name in names}}


def paper_budget(precision: Precision, options: argparse.Namespace) -> dict[str, Any]:
    """Median seconds of a step of the paper's recipe on views of noise, and its steps over 50,000 images."""
    device, size = torch.device(options.device), options.size
    asked = AdaptOptions(recipe="paper", size=size, batch_size=PAPER_BATCH, precision=precision)
    plan = make_plan(asked, PAPER_IMAGES, native_size=size)
    torch.manual_seed(0)
    backbone = timm.create_model(options.paper_arch, num_classes=0).to(device, memory_format=torch.channels_last)
    objective = SwappedObjective(feature_width(backbone), plan, device)
    normalize = Preprocessing(size, (0.5,) * 3, (0.5,) * 3).normalize
    trainer, views = Trainer(make_source(backbone, plan), objective, plan, normalize), plan.views
    sides = [views.global_size] * views.num_global + [views.local_size] * views.num_local
    noise = [
        torch.randint(256, (PAPER_BATCH, 3, side, side), dtype=torch.uint8, device=device).contiguous(
            memory_format=torch.channels_last
        )
        for side in sides
    ]
    changes = draw_changes(views, (len(sides), PAPER_BATCH), step_generator(0, 0, "changes"))
    batch, taken = ViewBatch(torch.arange(PAPER_BATCH), noise, changes), []
    for number in range(2 + options.rounds):
        started = waited(device)
        trainer.take_step(batch)
        if number >= 2:
            taken.append(waited(device) - started)
    seconds = statistics.median(taken)
    return {"arch": options.paper_arch, "precision": precision, "seconds": seconds, "num_steps": plan.num_steps}


def paper_line(row: dict[str, Any]) -> str:
    hours = row["seconds"] * row["num_steps"] / 3600
    return (
        f"The paper's recipe, {row['arch']}, {row['precision']}: {row['num_steps']:,} steps of {PAPER_BATCH}, "
        f"{1e3 * row['seconds']:.1f} ms each: {hours:.1f} hours, {hours * 6:.0f} pieces of ten minutes."
    )


HEAD = (
    "| backbone | mode | batch | fine-tuning | plain wrapper | mask | late mask | late, cached | mask / fine-tuning "
    "| wrapper / mask | late / fine-tuning | cached / fine-tuning | memory, same order, GB | share of the card |\n"
    "|" + "---|" * 14
)


def line_of(row: dict[str, Any]) -> str:
    seconds = row["seconds"]

    def ratio(one: str, other: str) -> str:
        return f"{seconds[one] / seconds[other]:.2f}" if seconds[one] and seconds[other] else "-"

    cells = [row["arch"], row["mode"], str(row["batch"])]
    cells += [f"{1e3 * seconds[method]:.1f} ms" if seconds[method] else "-" for method in METHODS]
    cells += [ratio("mask", "fine-tuning"), ratio("plain wrapper", "mask"), ratio("late mask", "fine-tuning")]
    cells.append(ratio("late mask, cached", "fine-tuning"))
    cells.append(", ".join(f"{size / 1e9:.2f}" if size else "-" for size in row["bytes"].values()))
    cells.append("-" if row["share"] is None else f"{row['share']:.0%}")
    cells += [f"{method} {1e3 * seconds[method]:.1f} ms" for method in UNFOLDED if seconds.get(method)]
    return f"| {' | '.join(cells)} |"


def run_table(run: dict[str, Any]) -> str:
    steps = f"{run['num_steps']} steps of {run['batch_size']}"
    lines = [f"A default run: {run['images']} images, {steps}, {run['precision']}:\n"]
    lines += ["| part | seconds |", "|---|---|", *(f"| {part} | {s:.1f} |" for part, s in run["seconds"].items())]
    steps_s, waiting_s = run["seconds"].get("steps", 0.0), run["seconds"].get("waiting", 0.0)
    if steps_s:
        lines.append(f"\nOf steps and waiting, {waiting_s / (steps_s + waiting_s):.1%} is waiting for views.")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
