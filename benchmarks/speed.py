"""What a training step costs: masks, ordinary fine-tuning of the same weights, and a plain masking wrapper.

    python benchmarks/speed.py                              # the table, as Markdown
    python benchmarks/speed.py --archs resnet18 --rounds 5 --profile

All three take the same views (2x64 + 4x32 px, already decoded), the same swapped loss and the same optimiser. Seconds:
alternating rounds in one process, median. Memory: the most that a process of its own held (VmHWM), Python and torch
included.

The wrapper is how such masks are commonly written (method of arXiv 2409.07577, three copies of the base): every forward
pass makes mask, scaled weight and masked weight anew as autograd operations.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from torch import Tensor, nn
from torch.func import functional_call

from smn_cli.config.options import AdaptOptions
from smn_cli.config.planning import make_plan
from smn_cli.data.augmenting import augment, draw_changes
from smn_cli.data.loading import ViewBatch
from smn_cli.data.preprocessing import Preprocessing
from smn_cli.masking.maskable import maskable_names
from smn_cli.recipes import ViewPlan
from smn_cli.training.record import versions
from smn_cli.training.swapped import SwappedObjective
from smn_cli.training.trainer import Trainer, make_source

BATCHES = {"tf_efficientnet_lite0": 64, "resnet18": 32, "resnet50": 16, "vit_tiny_patch16_224": 32}
METHODS = ("fine-tuning", "mask", "plain wrapper")


class _Binary(torch.autograd.Function):
    """Scores to ones and zeros; the gradient passes unchanged."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor) -> Tensor:
        return (scores > 0).to(scores.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad


class PlainWrapper(nn.Module):
    """A weight source for the trainer that masks without thought for time or memory."""

    def __init__(self, backbone: nn.Module, names: list[str]) -> None:
        super().__init__()
        self.backbone = backbone.eval().requires_grad_(False)
        self.kept = {name: backbone.get_parameter(name).detach().clone() for name in names}
        self.data = {name: weight.clone() for name, weight in self.kept.items()}
        self.trained = {name: nn.Parameter(torch.ones_like(weight)) for name, weight in self.kept.items()}

    def forward(self, images: Tensor) -> Tensor:
        weights = {}
        for name, scores in self.trained.items():
            mask = _Binary.apply(scores)
            scaled = self.kept[name] * mask.mean().rsqrt()
            weights[name] = scaled * mask
        features: Tensor = functional_call(self.backbone, weights, (images,))
        return features


class InPlace:
    """A weight source that trains the backbone's own weights, as fine-tuning commonly does."""

    def __init__(self, backbone: nn.Module, names: list[str]) -> None:
        self.backbone = backbone.eval().requires_grad_(False)
        self.trained = {name: backbone.get_parameter(name).requires_grad_() for name in names}

    def effective_weights(self) -> dict[str, Tensor]:
        return {}

    def refresh(self) -> int:
        return 0

    def density(self) -> float:
        return 1.0


class WrapperStep:
    """One step with `PlainWrapper`: the trainer's, but for the weights."""

    def __init__(self, wrapper: PlainWrapper, objective: SwappedObjective, normalize: Callable[[Tensor], Tensor]):
        self.wrapper, self.objective, self.normalize = wrapper, objective, normalize
        self.optimizer = torch.optim.Adam(wrapper.trained.values(), lr=0.01, fused=True)

    def __call__(self, batch: ViewBatch) -> None:
        self.objective.before_step(0.1)
        features: list[Tensor] = []
        for first, last in ((0, 2), (2, 6)):
            pixels = augment(torch.cat(batch.views[first:last]), batch.changes.views(first, last), make_views())
            images = self.normalize(pixels).contiguous(memory_format=torch.channels_last)
            features.extend(self.wrapper(images).chunk(last - first))
        self.objective.loss(0, batch.positions, features).backward()
        self.objective.after_backward(0)
        self.optimizer.step()
        self.optimizer.zero_grad()


def make_step(method: str, arch: str, batch_size: int, extra: dict[str, Any]) -> Callable[[ViewBatch], None]:
    """A function that takes one step on a batch."""
    sized = {"img_size": 64, "dynamic_img_size": True} if arch.startswith("vit") else {}
    torch.manual_seed(0)
    backbone = timm.create_model(arch, num_classes=0, **sized).to(memory_format=torch.channels_last)
    train = "full" if method == "fine-tuning" else "mask"
    options = AdaptOptions(recipe="swav", steps=100_000, batch_size=batch_size, size=64, local_views=4, prototypes=100,
                           train=train, keep="last", **extra)  # fmt: skip
    plan = make_plan(options, 10_000)
    object.__setattr__(plan, "head_steps", 0)
    normalize = Preprocessing(64, (0.5,) * 3, (0.5,) * 3).normalize
    objective = SwappedObjective(backbone.num_features, plan, torch.device("cpu"))
    names = maskable_names(backbone, include_depthwise=False, include_stem=False, also=())
    if method == "plain wrapper":
        return WrapperStep(PlainWrapper(backbone, names), objective, normalize)
    source = InPlace(backbone, names) if method == "fine-tuning" else make_source(backbone, plan)
    trainer = Trainer(source, objective, plan, normalize)
    return lambda batch: trainer.take_step(batch) and None


def make_views() -> ViewPlan:
    """Two large and four small views."""
    return make_plan(AdaptOptions(recipe="swav", size=64, local_views=4), 10_000).views


def make_batch(batch_size: int) -> ViewBatch:
    """Views of noise: their content changes no time."""
    generator = torch.Generator().manual_seed(0)
    sizes = [64] * 2 + [32] * 4
    views = [torch.randint(256, (batch_size, 3, size, size), generator=generator, dtype=torch.uint8) for size in sizes]
    changes = draw_changes(make_views(), (len(sizes), batch_size), np.random.default_rng(0))
    return ViewBatch(torch.arange(batch_size), views, changes)


def seconds_of(arch: str, rounds: int, extra: dict[str, Any]) -> dict[str, float]:
    """Median seconds a step, by method."""
    batch = make_batch(BATCHES[arch])
    steps = {method: make_step(method, arch, BATCHES[arch], extra) for method in METHODS}
    taken: dict[str, list[float]] = {method: [] for method in METHODS}
    for number in range(rounds + 1):
        for method in METHODS:
            started = time.perf_counter()
            steps[method](batch)
            if number:  # the first round warms up
                taken[method].append(time.perf_counter() - started)
    return {method: statistics.median(values) for method, values in taken.items()}


def memory_of(arch: str, method: str, extra: dict[str, Any]) -> float:
    """Most bytes held in five steps by a process of its own."""
    command = [sys.executable, __file__, "--memory-of", arch, method, "--extra", json.dumps(extra)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def peak_bytes() -> int:
    """Most memory this process has held; getrusage would count what its parent held, too."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def profile(arch: str, extra: dict[str, Any]) -> str:
    """Where the time of a masked step goes."""
    batch, step = make_batch(BATCHES[arch]), make_step("mask", arch, BATCHES[arch], extra)
    step(batch)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as prof:
        for _ in range(3):
            step(batch)
    return prof.key_averages().table(sort_by="self_cpu_time_total", row_limit=25, max_name_column_width=60)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--archs", nargs="+", default=list(BATCHES), choices=list(BATCHES))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--extra", type=json.loads, default={}, help="further AdaptOptions, as JSON")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--memory-of", nargs=2, metavar=("ARCH", "METHOD"))
    options = parser.parse_args()
    if options.memory_of:
        arch, method = options.memory_of
        batch, step = make_batch(BATCHES[arch]), make_step(method, arch, BATCHES[arch], options.extra)
        for _ in range(5):
            step(batch)
        print(peak_bytes())
        return
    print(f"{torch.get_num_threads()} threads; {versions()}; {options.rounds} rounds; {options.extra}\n")
    print("| backbone | batch | fine-tuning | mask | plain wrapper | mask / fine-tuning | wrapper / mask | memory: "
          "fine-tuning | mask | plain wrapper | mask / fine-tuning |")  # fmt: skip
    print("|" + "---|" * 11)
    for arch in options.archs:
        if options.profile:
            print(profile(arch, options.extra))
            continue
        s = seconds_of(arch, options.rounds, options.extra)
        m = {method: memory_of(arch, method, options.extra) for method in METHODS}
        cells = [f"{s[method]:.3f} s" for method in METHODS]
        cells += [f"{s['mask'] / s['fine-tuning']:.3f}", f"{s['plain wrapper'] / s['mask']:.2f}"]
        cells += [f"{m[method] / 1e9:.2f} GB" for method in METHODS] + [f"{m['mask'] / m['fine-tuning']:.2f}"]
        print(f"| {arch} | {BATCHES[arch]} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
