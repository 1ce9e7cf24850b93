"""Whether a run keeps what its frozen first blocks make of its images, how many draws of them, and why."""

from dataclasses import replace

from torch import nn

from smn_cli.backbones.loading import Backbone
from smn_cli.backbones.trunk import CutNetwork, cut_before_trained
from smn_cli.config.cache_budget import parse_budget
from smn_cli.config.plan import AdaptPlan
from smn_cli.data.views.memory import free_memory
from smn_cli.errors import BackboneError, UsageError
from smn_cli.training.mask_setup import names_to_train

LEAST_DRAWS, MOST_DRAWS = 2, 4
"""Of an image; one alone would never move."""
LEAST_REUSE = 1.5
"""Visits of an image to one draw of it, or filling the cache costs what it saves."""
LEAST_SHARE = 0.25
"""Of a forward pass that has to lie in the trunk, unless bytes are asked for."""
AUTO_SHARE, AUTO_BYTES = 0.25, 2 * 10**9
"""Of the memory that is free when a run is planned, and at most."""
_BYTES_A_NUMBER = 2


def with_trunk_cache(
    plan: AdaptPlan, asked: str, backbone: Backbone, num_images: int, num_processes: int = 1
) -> AdaptPlan:
    """The plan with `cached_views`, `cached_bytes` and the reason, by what was asked for.

    Args:
        plan: all other settings.
        asked: `--cache-trunk`.
        backbone: on its device.
        num_images: that the run may have, held-out ones too.
        num_processes: that share the run, each with all that is kept.

    Raises:
        UsageError: bytes were asked for, and nothing can be kept, or not in so few.
    """
    budget = parse_budget(asked)
    if budget == 0:
        return plan
    try:
        num_draws, num_bytes, reason = _draws(plan, budget, backbone, num_images, num_processes)
    except BackboneError as error:  # why nothing can be kept
        if budget is not None:
            raise UsageError(f"`cache_trunk` {asked}: {error}; leave it out, or give auto") from None
        num_draws, num_bytes, reason = 0, 0, str(error)
    return replace(
        plan,
        cached_views=num_draws,
        cached_bytes=num_bytes,
        reasons={**plan.reasons, "cached_views": reason},
    )


def cut_of_plan(backbone: Backbone, plan: AdaptPlan, network: nn.Module | None = None) -> CutNetwork:
    """The network of a run, cut before its first trained block; see `cut_before_trained`.

    Args:
        backbone, plan: of the run.
        network: with the same blocks and names, to cut instead of the backbone's own.
    """
    names = names_to_train(backbone.model, plan)
    return cut_before_trained(backbone.model if network is None else network, names, plan.views.global_size)


def _draws(
    plan: AdaptPlan, budget: int | None, backbone: Backbone, num_images: int, num_processes: int
) -> tuple[int, int, str]:
    """How many draws of every image are kept, their bytes, and why; 0 where it does not pay.

    Raises:
        BackboneError: nothing can be kept.
    """
    if obstacle := _obstacle(plan):
        raise BackboneError(obstacle)
    num_training = min(num_images, plan.max_images) - plan.num_holdout
    visits = plan.num_steps * plan.batch_size / num_training
    wanted = min(MOST_DRAWS, int(visits / LEAST_REUSE))
    if wanted < LEAST_DRAWS:
        return 0, 0, f"every image is seen {visits:.1f} times: to keep what its first blocks give would save nothing"
    network = cut_of_plan(backbone, plan)
    if budget is None and network.share < LEAST_SHARE:
        return 0, 0, f"{network.share:.0%} of the work lies before {network.block}: too little to be worth keeping"
    an_image = _bytes_an_image(network, plan)
    room = min(AUTO_BYTES, int(AUTO_SHARE * free_memory() / num_processes)) if budget is None else budget
    num_draws = min(wanted, room // (an_image * num_training))
    if num_draws < LEAST_DRAWS:
        least = LEAST_DRAWS * an_image * num_training
        raise BackboneError(f"{LEAST_DRAWS} views of every image take {least:,} bytes before {network.block}")
    num_bytes = num_draws * an_image * num_training
    reason = (
        f"what the frozen blocks before {network.block} give for so many views of an image is computed once, kept in "
        f"{num_bytes:,} bytes, and used {visits / num_draws:.1f} times; `cache_trunk` off draws new views in every step"
    )
    return num_draws, num_bytes, reason


def _obstacle(plan: AdaptPlan) -> str:
    """What of the plan forbids it; empty if nothing does."""
    if plan.norm_stats == "adapt":
        return "normalisation statistics adapt, also those of the first blocks"
    if not plan.mode.moves:
        return f"`train` {plan.train} trains none of the network's weights"
    if plan.compile:
        return "`compile` compiles the network as one"
    if plan.grad_checkpoint:
        return "`grad_checkpoint` runs blocks in parts"
    return "views of two sizes are not kept" if plan.views.num_local else ""


def _bytes_an_image(network: CutNetwork, plan: AdaptPlan) -> int:
    return network.num_activations * plan.views.num_global * _BYTES_A_NUMBER
