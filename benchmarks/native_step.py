"""One step of the default recipe at native size by method, on views of noise: what gpu.py and two_processes.py time."""

import argparse
from collections.abc import Callable
from typing import Any, cast

import timm
import torch
from speed import InPlace, PlainWrapper
from torch import Tensor, nn

from smn_cli.backbones.folding import fold
from smn_cli.backbones.loading import feature_width
from smn_cli.backbones.trunk import CutNetwork, cut_before_trained
from smn_cli.config.options import AdaptOptions
from smn_cli.data.preprocessing import Preprocessing
from smn_cli.data.views.augmentation import draw_changes
from smn_cli.data.views.loader import ViewBatch
from smn_cli.distributed import Team
from smn_cli.evaluation.precision import autocasting
from smn_cli.masking.backbone import MaskedBackbone
from smn_cli.objectives.neighbourhood import NeighbourhoodObjective, neighbour_targets
from smn_cli.recipes import Precision
from smn_cli.seeding import step_generator
from smn_cli.training.mask_setup import first_scores, names_to_train
from smn_cli.training.planning import make_plan
from smn_cli.training.trainer import Trainer
from smn_cli.training.trunk_cache import Layout, TrunkCache

METHODS = ("fine-tuning", "plain wrapper", "mask", "late mask", "late mask, cached")
UNFOLDED = ("mask, unfolded", "late mask, unfolded")
"""The same with normalisations as layers of their own; asked for by name."""
NUM_IMAGES = 4096
"""Rows of the memory that neighbours are looked for in."""


def make_step(
    arch: str, mode: str, batch_size: int, method: str, options: argparse.Namespace
) -> Callable[[ViewBatch], object]:
    """One step of the default lesson at native size, by method."""
    device = torch.device(options.device)
    precision, is_compiled = cast(Precision, mode.split()[0]), mode.endswith("compiled")
    plan = make_plan(
        AdaptOptions(batch_size=batch_size, steps=100_000, size=options.size, teacher=("stages",), keep="last",
                     precision=precision, compile=is_compiled, train="full" if method == "fine-tuning" else "mask",
                     mask_only=mask_only(method, options.late)),
        NUM_IMAGES + batch_size, native_size=options.size,
    )  # fmt: skip
    torch.manual_seed(0)
    backbone = timm.create_model(arch, num_classes=0).to(device, memory_format=torch.channels_last).eval()
    normalize = Preprocessing(options.size, (0.5,) * 3, (0.5,) * 3).normalize
    objective = make_objective(feature_width(backbone), plan.temperature, device)
    names = names_to_train(backbone.requires_grad_(False), plan)
    if method == "plain wrapper":
        return wrapper_step(PlainWrapper(backbone, names), objective, precision, normalize)
    if method == "fine-tuning":
        source: Any = InPlace(backbone, names)
    else:
        source = MaskedBackbone(backbone, first_scores(backbone, names, plan))
    worked = None if method == "fine-tuning" or method in UNFOLDED else fold(backbone, options.size)
    trainer = Trainer(source, objective, plan, normalize, network=worked)
    if method.endswith("cached"):
        return cached_step(trainer, cut_before_trained(trainer.network.network, names, options.size))
    return trainer.take_step


def mask_only(method: str, late: float | None) -> tuple[str, ...]:
    """Of a plan; what a recipe has by default where nothing is said."""
    if method == "fine-tuning":
        return ()
    if method.startswith("late"):
        return () if late is None else (f"late:{late:g}",)
    return ("late:0",)


def cached_step(trainer: Trainer, network: CutNetwork) -> Callable[[ViewBatch], object]:
    """A step over activations that lie in the machine's memory, as a run has them; they are made in its first call."""
    kept: list[TrunkCache] = []

    def step(batch: ViewBatch) -> object:
        if not kept:
            activations = trainer.activations(network, batch)
            layout = Layout.of(activations)
            dtype = layout.dtype if layout.dtype.itemsize == 2 else torch.float16
            kept.append(TrunkCache(network, layout, layout.rows(activations).to("cpu", dtype)[None, None]))
        return trainer.take_step(kept[0].batch(0, batch.positions))

    return step


def make_objective(num_features: int, temperature: float, device: torch.device) -> NeighbourhoodObjective:
    generator = torch.Generator().manual_seed(0)
    memory = nn.functional.normalize(torch.randn(NUM_IMAGES, num_features, generator=generator), dim=1)
    places, shares = neighbour_targets(memory, perplexity=30.0)
    prepared = {"mean": torch.zeros(num_features), "places": places, "shares": shares, "memory": memory.half()}
    return NeighbourhoodObjective(prepared, temperature=temperature, device=device, team=Team())


def wrapper_step(
    wrapper: PlainWrapper, objective: NeighbourhoodObjective, precision: str, normalize: Callable[[Tensor], Tensor]
) -> Callable[[ViewBatch], None]:
    optimizer = torch.optim.Adam(wrapper.trained.values(), lr=0.01, fused=True)

    def step(batch: ViewBatch) -> None:
        images = normalize(batch.views[0]).contiguous(memory_format=torch.channels_last)
        with autocasting(precision, images.device):
            features = wrapper(images)
        objective.loss(0, batch.positions, [features]).backward()  # type: ignore[no-untyped-call]
        objective.after_backward(0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def make_batch(batch_size: int, size: int, device: torch.device) -> ViewBatch:
    """Views of noise on the device: their content changes no time."""
    generator = torch.Generator().manual_seed(0)
    view = torch.randint(256, (batch_size, 3, size, size), generator=generator, dtype=torch.uint8)
    plan = make_plan(AdaptOptions(size=size, teacher=("stages",)), NUM_IMAGES, native_size=size).views
    changes = draw_changes(plan, (1, batch_size), step_generator(0, 0, "changes"))
    view = view.to(device).contiguous(memory_format=torch.channels_last)
    return ViewBatch(torch.arange(batch_size), [view], changes)
