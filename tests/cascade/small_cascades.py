"""A cascade over a tiny network: seeded masks, experts that differ in a few weights near the dispatcher's threshold."""

from dataclasses import replace
from functools import cache

import numpy as np
import timm
import torch
from torch import Tensor, nn

from smn_cli.adapters.adapter import Adapter, make_adapter
from smn_cli.cascade.cascade import Cascade, make_cascade
from smn_cli.cascade.combining import fit_combination
from smn_cli.cascade.router import Router, fit_router
from tests.adapters.forging import toy_base
from tests.conftest import CONVNET, random_weights

NUM_EXPERTS = 3
SIZE = 32


def small_model(arch: str = CONVNET) -> nn.Module:
    """A tiny network of seeded weights, without classifier, in eval mode."""
    model: nn.Module = timm.create_model(arch, pretrained=False, num_classes=0)
    own = model.state_dict()
    model.load_state_dict({name: tensor for name, tensor in random_weights(arch).items() if name in own})
    return model.eval()


def images(num_images: int, *, seed: int = 0) -> Tensor:
    """Prepared images of a few brightnesses, so that there is something to cluster."""
    generator = torch.Generator().manual_seed(seed)
    levels = torch.randint(0, NUM_EXPERTS, (num_images, 1, 1, 1), generator=generator) - 1.0
    return torch.randn(num_images, 3, SIZE, SIZE, generator=generator) + 2 * levels


def small_adapters(base: dict[str, Tensor], *, statistics: bool = False, spread: float = 0.1) -> list[Adapter]:
    """A dispatcher and experts; the last expert is the dispatcher itself."""
    generator = np.random.default_rng(0)
    names = [name for name, tensor in base.items() if tensor.ndim >= 2][-4:]
    scores = {name: generator.normal(1.3, 1.0, tuple(base[name].shape)) for name in names}
    carried = {name: base[name] for name in base if name.endswith(("running_mean", "running_var"))}
    adapters = []
    for number in range(NUM_EXPERTS + 1):
        moved = spread if 0 < number < NUM_EXPERTS else 0.0
        masks = {
            name: torch.from_numpy(score + moved * generator.standard_normal(score.shape) > 0)
            for name, score in scores.items()
        }
        for mask in masks.values():
            mask.view(-1)[0] = True
        norm_stats = {name: tensor * (1 + moved * number) for name, tensor in carried.items()}
        adapters.append(
            make_adapter(
                base,
                masks,
                arch=CONVNET,
                codec="bits",
                norm_stats=norm_stats if statistics else None,
                preprocessing={"size": SIZE},
                provenance={"seed": 3, "images": 60 + number if moved else 60},
            )
        )
    return adapters


def features_of(adapter: Adapter, model: nn.Module, batch: Tensor) -> Tensor:
    """Of the adapted network."""
    adapter.apply(model)
    with torch.inference_mode():
        features: Tensor = model(batch)
    adapter.remove(model)
    return features.clone()


@cache
def small_parts() -> tuple[Cascade, list[Tensor]]:
    """A cascade over `small_model` and sixty images, and all features of those, the dispatcher's first."""
    model = small_model()
    base = model.state_dict()
    dispatcher, *experts = small_adapters(base)
    blocks = [features_of(adapter, model, images(60)) for adapter in (dispatcher, *experts)]
    router = fit_router(blocks[0], NUM_EXPERTS, num_components=4)
    combination = fit_combination(blocks, router.route(blocks[0]))
    provenance = {"note": "caf\u00e9"}
    return make_cascade(
        base, dispatcher, experts, router=router, combination=combination, provenance=provenance
    ), blocks


def small_cascade(kind: str = "none", mode: str = "conditional") -> Cascade:
    """That cascade with any combination."""
    cascade, blocks = small_parts()
    routes = cascade.router.route(blocks[0]) if mode == "conditional" else None
    dim = None if kind == "none" else 12
    return replace(cascade, combination=fit_combination(blocks, routes, kind=kind, dim=dim, seed=5))


def toy_cascade(*, statistics: bool = False) -> Cascade:
    """The smallest: over the toy base of the adapter tests, with made-up features of width 6."""
    base = toy_base()
    dispatcher, *experts = small_adapters(base, statistics=statistics, spread=0.8)
    generator = torch.Generator().manual_seed(1)
    blocks = [torch.randn(20, 6, generator=generator) for _ in range(NUM_EXPERTS + 1)]
    router = toy_router(blocks[0])
    combination = fit_combination(blocks, router.route(blocks[0]), kind="random", dim=4)
    return make_cascade(base, dispatcher, experts, router=router, combination=combination)


def toy_router(features: Tensor) -> Router:
    """Over features of any width."""
    return fit_router(features, NUM_EXPERTS, num_components=2)
