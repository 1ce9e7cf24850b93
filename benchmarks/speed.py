"""What a training step costs: masks, ordinary fine-tuning of the same weights, and a plain masking wrapper.

    python benchmarks/speed.py                              # the table, as Markdown
    python benchmarks/speed.py --archs resnet18 --rounds 5 --parts

All take the same views (2x64 + 4x32 px, already decoded), the same swapped loss and the same optimiser. "frozen norm"
is fine-tuning with smn's cheaper frozen normalisation. Seconds: alternating rounds in one process, median. Memory: the
most that a process of its own held (VmHWM), Python and torch included.

The wrapper is how such masks are commonly written (method of arXiv 2409.07577, three copies of the base): every forward
pass makes mask, scaled weight and masked weight anew as autograd operations.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from torch import Tensor, nn
from torch.func import functional_call

from smn_cli.backbones.folding import fold
from smn_cli.config.options import AdaptOptions
from smn_cli.data.preprocessing import Preprocessing
from smn_cli.data.views.augmentation import augment, draw_changes
from smn_cli.data.views.loader import ViewBatch
from smn_cli.masking.backbone import MaskedBackbone
from smn_cli.masking.maskable import maskable_names
from smn_cli.objectives.swapped import SwappedObjective
from smn_cli.recipes import Train, ViewPlan
from smn_cli.runs.run_config import versions
from smn_cli.training import trainer as trainer_module
from smn_cli.training.planning import make_plan
from smn_cli.training.trainer import Trainer, make_source

BATCHES = {"tf_efficientnet_lite0": 64, "resnet18": 32, "resnet50": 16, "vit_tiny_patch16_224": 32}
METHODS = ("fine-tuning", "fine-tuning, frozen norm", "mask", "plain wrapper")
COMPILED = ("fine-tuning", "fine-tuning, compiled", "mask", "mask, compiled")


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
        self.trained = {name: backbone.get_parameter(name) for name in names}
        for weight in self.trained.values():
            weight.requires_grad_()

    def effective_weights(self) -> dict[str, Tensor]:
        return {}

    def pass_gradients(self) -> None:
        pass

    def refresh(self) -> int:
        return 0

    def final_weights(self) -> dict[str, Tensor]:
        return {name: weight.detach().clone() for name, weight in self.trained.items()}

    def masks(self) -> dict[str, Tensor]:
        return {}

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
        self.objective.loss(0, batch.positions, features).backward()  # type: ignore[no-untyped-call]
        self.objective.after_backward(0)
        self.optimizer.step()
        self.optimizer.zero_grad()


def make_step(method: str, arch: str, batch_size: int, extra: dict[str, Any]) -> Callable[[ViewBatch], object]:
    """A function that takes one step on a batch."""
    sized = {"img_size": 64, "dynamic_img_size": True} if arch.startswith("vit") else {}
    torch.manual_seed(0)
    backbone = timm.create_model(arch, num_classes=0, **sized).to(memory_format=torch.channels_last)
    train: Train = "full" if method.startswith("fine-tuning") else "mask"
    extra = {**extra, "compile": True} if method.endswith("compiled") else extra
    options = AdaptOptions(recipe="swav", steps=100_000, batch_size=batch_size, size=64, local_views=4, prototypes=100,
                           train=train, keep="last", **extra)  # fmt: skip
    plan = make_plan(options, 10_000)
    object.__setattr__(plan, "head_steps", 0)
    normalize = Preprocessing(64, (0.5,) * 3, (0.5,) * 3).normalize
    objective = SwappedObjective(backbone.num_features, plan, torch.device("cpu"))
    names = maskable_names(backbone, include_depthwise=False, include_stem=False, also=())
    if method == "plain wrapper":
        return WrapperStep(PlainWrapper(backbone, names), objective, normalize)
    source = InPlace(backbone, names) if method.startswith("fine-tuning") else make_source(backbone, plan)
    worked = fold(backbone, 64) if method.startswith("mask") and plan.norm_stats == "frozen" else None
    worked = worked if worked is not None and worked.takes(names) else None
    trainer = Trainer(source, objective, plan, normalize, network=worked)
    if method in ("fine-tuning", "fine-tuning, compiled"):
        trainer._norm_layers = []
    return trainer.take_step


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


def seconds_of(arch: str, rounds: int, extra: dict[str, Any], methods: Sequence[str] = METHODS) -> dict[str, float]:
    """Median seconds a step, by method."""
    batch = make_batch(BATCHES[arch])
    steps = {method: make_step(method, arch, BATCHES[arch], extra) for method in methods}
    taken: dict[str, list[float]] = {method: [] for method in methods}
    for number in range(rounds + 1):
        for method in methods:
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


def parts_of(arch: str, rounds: int, extra: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Median seconds of the parts of a step, by method; what is not listed is in "rest"."""
    batch = make_batch(BATCHES[arch])
    methods = ("fine-tuning", "plain wrapper", "mask")
    taken: dict[str, dict[str, list[float]]] = {method: {} for method in methods}
    with _Stopwatch() as watch:
        steps = {method: make_step(method, arch, BATCHES[arch], extra) for method in methods}
        for number in range(rounds + 1):
            for method in methods:
                watch.seconds.clear()
                started = time.perf_counter()
                steps[method](batch)
                whole = time.perf_counter() - started
                parts = {**watch.seconds, "rest": whole - sum(watch.seconds.values()), "whole step": whole}
                for part, seconds in parts.items() if number else ():
                    taken[method].setdefault(part, []).append(seconds)
    return {method: {part: statistics.median(v) for part, v in parts.items()} for method, parts in taken.items()}


class _Stopwatch:
    """Seconds spent in the parts of a step; a part inside another counts as the outer one."""

    PLACES = (
        ("views", sys.modules[__name__], "augment"),
        ("views", trainer_module, "augment"),
        ("forward", trainer_module, "run_backbone"),
        ("forward", PlainWrapper, "forward"),
        ("loss", SwappedObjective, "loss"),
        ("backward", Tensor, "backward"),
        ("gradients to scores", MaskedBackbone, "pass_gradients"),
        ("optimiser", torch.optim.Adam, "step"),
        ("forming weights, counts", MaskedBackbone, "refresh"),
    )

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._is_inside = False

    def __enter__(self) -> "_Stopwatch":
        self._own = [(place, name, getattr(place, name)) for _, place, name in self.PLACES]
        for part, place, name in self.PLACES:
            setattr(place, name, self._timed(part, getattr(place, name)))
        return self

    def __exit__(self, *_: object) -> None:
        for place, name, function in self._own:
            setattr(place, name, function)

    def _timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            if self._is_inside:
                return function(*args, **kwargs)
            self._is_inside, started = True, time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self._is_inside = False
                self.seconds[part] = self.seconds.get(part, 0.0) + time.perf_counter() - started

        return timed


def print_parts(arch: str, parts: dict[str, dict[str, float]]) -> None:
    """Markdown, milliseconds."""
    methods = list(parts)
    rows = list(dict.fromkeys(part for by_part in parts.values() for part in by_part))
    rows.sort(key=[*(part for part, *_ in _Stopwatch.PLACES), "rest", "whole step"].index)
    print(f"| {arch}, ms | {' | '.join(methods)} |\n" + "|" + "---|" * (len(methods) + 1))
    for row in rows:
        cells = [f"{1e3 * parts[method][row]:.0f}" if row in parts[method] else "-" for method in methods]
        print(f"| {row} | {' | '.join(cells)} |")
    print(flush=True)


def print_compiled(options: argparse.Namespace) -> None:
    """Markdown."""
    ratios = ("fine-tuning: compiled / plain", "mask: compiled / plain", "compiled: mask / fine-tuning")
    print(f"| backbone | batch | {' | '.join((*COMPILED, *ratios))} |\n" + "|" + "---|" * (len(COMPILED) + 5))
    for arch in options.archs:
        s = seconds_of(arch, options.rounds, options.extra, COMPILED)
        tuned, tuned_compiled, mask, mask_compiled = s.values()
        cells = [f"{value:.3f} s" for value in s.values()]
        cells += [
            f"{value:.3f}" for value in (tuned_compiled / tuned, mask_compiled / mask, mask_compiled / tuned_compiled)
        ]
        print(f"| {arch} | {BATCHES[arch]} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--archs", nargs="+", default=list(BATCHES), choices=list(BATCHES))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--extra", type=json.loads, default={}, help="further AdaptOptions, as JSON")
    parser.add_argument("--parts", action="store_true", help="where the time of a step goes, instead")
    parser.add_argument("--compiled", action="store_true", help="with and without torch.compile, instead")
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
    if options.compiled:
        print_compiled(options)
        return
    heads = ["backbone", "batch", *METHODS, "mask / fine-tuning", "wrapper / mask", f"memory: {METHODS[0]}",
             *METHODS[1:], "mask / fine-tuning"]  # fmt: skip
    print(f"| {' | '.join(heads)} |\n" + "|" + "---|" * len(heads))
    for arch in options.archs:
        if options.parts:
            print_parts(arch, parts_of(arch, options.rounds, options.extra))
            continue
        s = seconds_of(arch, options.rounds, options.extra)
        m = {method: memory_of(arch, method, options.extra) for method in METHODS}
        cells = [f"{s[method]:.3f} s" for method in METHODS]
        cells += [f"{s['mask'] / s['fine-tuning']:.3f}", f"{s['plain wrapper'] / s['mask']:.2f}"]
        cells += [f"{m[method] / 1e9:.2f} GB" for method in METHODS] + [f"{m['mask'] / m['fine-tuning']:.2f}"]
        print(f"| {arch} | {BATCHES[arch]} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
