"""What a run may cut, where its scores start, and how much of them it keeps: the plan's words over a network."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from smn_cli.backbones.structure import block_names, cached_biases, idle_biases
from smn_cli.config.mask_selection import Selection, parse_selection
from smn_cli.config.plan import AdaptPlan
from smn_cli.errors import UsageError
from smn_cli.masking.maskable import fits, maskable_names
from smn_cli.masking.random_subset import draw_weights, random_scores
from smn_cli.masking.scores import constant_scores, magnitude_scores
from smn_cli.masking.ties import tied_names


def names_to_train(backbone: nn.Module, plan: AdaptPlan) -> list[str]:
    """Parameters that get scores, or for the full fine-tuning baseline are trained, in the order of the module tree.

    Each is named once, by its first name. A pattern fits a parameter if it fits one of its names; it lies in the first
    blocks if all of its names do. What a network reads once, see `cached_biases`, is never among them.

    Raises:
        UsageError: `mask_only` asks for what the network does not have.
    """
    selection, tied = parse_selection(plan.mask_only), tied_names(backbone)
    all_names = {name: tied.get(name, (name,)) for name, _ in backbone.named_parameters()}
    if selection.names:
        names = [name for name in all_names if fits(all_names[name], selection.names)]
    else:
        names = maskable_names(
            backbone, include_depthwise=plan.include_depthwise, include_stem=plan.include_stem, also=plan.mask_also
        )
    cached = cached_biases(backbone)
    chosen = [name for name in names if name not in cached and not fits(all_names[name], selection.all_but)]
    if selection.num_blocks is not None:
        blocks = _first_blocks(backbone, selection.num_blocks)
        chosen = [name for name in chosen if all(each.startswith(blocks) for each in all_names[name])]
    if selection.trunk_share:
        trunk = _trunk(backbone, chosen, all_names, selection.trunk_share)
        chosen = [name for name in chosen if name not in trunk]
    if plan.mask_only and not chosen:
        raise UsageError(f"`mask_only` {' '.join(plan.mask_only)} leaves no parameter of this network: see its names")
    return chosen


def why_late(backbone: nn.Module, plan: AdaptPlan) -> str:
    """From which block on a network is masked, and what the blocks before it hold."""
    chosen, whole = (names_to_train(backbone, each) for each in (plan, replace(plan, mask_only=())))
    late, every = (sum(backbone.get_parameter(name).numel() for name in names) for names in (chosen, whole))
    blocks = block_names(backbone)
    if late == every:
        return "every weight: " + ("the first block holds more of them" if blocks else "this network names no blocks")
    first = next((name for name in blocks if any(each.startswith(f"{name}.") for each in chosen)), "the rest")
    return (
        f"{first} and what follows it; the blocks before hold {1 - late / every:.1%} of the weights and much of the "
        "work, and stay whole: they need no gradient"
    )


def first_scores(backbone: nn.Module, names: list[str], plan: AdaptPlan) -> dict[str, Tensor]:
    """Scores before the first step, by parameter name; infinite where a weight is never to be cut."""
    selection = parse_selection(plan.mask_only)
    idle = idle_biases(backbone)
    scores: dict[str, Tensor] = {}
    for name in names:
        weight = backbone.get_parameter(name)
        scores[name] = _start(weight, name, plan)
        if name in idle:
            scores[name][idle[name]] = torch.inf
        _close(scores[name], weight, name, selection, plan.seed)
    return scores


def _start(weight: Tensor, name: str, plan: AdaptPlan) -> Tensor:
    if plan.score_init == "magnitude":
        return magnitude_scores(weight) * plan.score_start
    if plan.score_init == "kaiming":
        return random_scores(weight, seed=plan.seed, name=name) * plan.score_start
    return constant_scores(weight, plan.score_start)


def _close(scores: Tensor, weight: Tensor, name: str, selection: Selection, seed: int) -> None:
    """Infinite scores lie above any threshold, and no step of an optimiser moves them."""
    if selection.draw is not None:
        drawn = draw_weights(weight, selection.draw, selection.share, seed=seed, name=name)
        scores.masked_fill_(~drawn, torch.inf)


def _trunk(backbone: nn.Module, chosen: list[str], all_names: dict[str, tuple[str, ...]], share: float) -> set[str]:
    """Of the chosen, those in the first blocks that hold at most a share of their weights, and those before them."""
    sizes = {name: backbone.get_parameter(name).numel() for name in chosen}
    room = share * sum(sizes.values())
    early: tuple[str, ...] = ()
    for block in (f"{name}." for name in block_names(backbone)):
        room -= sum(size for name, size in sizes.items() if name.startswith(block))
        if room < 0:
            break
        if not early:  # what lies before the first block
            names = list(all_names)
            early = tuple(names[: next((at for at, name in enumerate(names) if name.startswith(block)), 0)])
        early += (block,)
    return {name for name in chosen if all(each.startswith(early) for each in all_names[name])} if early else set()


def _first_blocks(backbone: nn.Module, num_blocks: int) -> tuple[str, ...]:
    blocks = block_names(backbone)
    if num_blocks > len(blocks):
        has = f"has {len(blocks)} ({blocks[0]} to {blocks[-1]})" if blocks else "names none: give name:PATTERN"
        raise UsageError(f"`mask_only` blocks:{num_blocks}: this network {has}")
    return tuple(f"{name}." for name in blocks[:num_blocks])
