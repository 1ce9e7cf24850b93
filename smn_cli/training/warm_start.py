"""A run that starts with the mask of another one, or of an adapter: labels after no labels, for one.

It is judged against the base like any run. A cascade's expert starts at more than a mask, and is judged against that:
see `start_state`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from smn_cli.adapters.adapter import load_adapter
from smn_cli.backbones.loading import Backbone
from smn_cli.config.plan import AdaptPlan
from smn_cli.errors import ClashError, UsageError
from smn_cli.masking.scores import nearest_scores
from smn_cli.masking.ties import under_first_names
from smn_cli.runs.run_config import check_run_base, plan_of
from smn_cli.runs.run_folder import RunFolder
from smn_cli.runs.run_result import read_learned
from smn_cli.training.trainer import Trainer


def read_start_masks(path: Path, backbone: Backbone) -> dict[str, Tensor]:
    """Masks that a run has kept, or that an adapter file holds, by first names (see `masking.ties`).

    Args:
        path: run folder or adapter file.
        backbone: the base, which must be theirs.

    Raises:
        UsageError: there is no mask, or one that stands on adapted statistics.
        MismatchError, FileError: of another base, or damaged.
    """
    if path.is_dir():
        folder = RunFolder.open(path)
        config = folder.read_config()
        check_run_base(config, backbone)
        learned = read_learned(folder)
        plan = plan_of(config, folder)
        if not plan.mode.has_mask:
            raise UsageError(
                f"`start` {path} trained the weights themselves (`train` {plan.train}): it has no mask to start from"
            )
        masks, has_statistics = learned.masks, bool(learned.norm_stats)
    else:
        adapter = load_adapter(path)
        base = backbone.model.state_dict()
        adapter.rebuild(base)  # refuses any other base
        masks = under_first_names(adapter.masks(base), backbone.model)
        has_statistics = bool(adapter.header.norm_stats)
    if has_statistics:
        raise UsageError(f"`start` {path} carries normalisation statistics: start from a mask that was learned without")
    return masks


def mirrored_scores(scores: Tensor, mask: Tensor, threshold: float) -> Tensor:
    """Scores that give a mask: where they do not, they are as far on the other side of the threshold.

    A score at the threshold that should be kept is put just above it; an infinite one stays, as its weight does.
    """
    turned = torch.where((scores > threshold) == mask, scores, 2 * threshold - scores)
    return torch.where(scores.isinf(), scores, nearest_scores(turned, mask, threshold))


@dataclass(frozen=True)
class WarmStart:
    """Given masks under a run; its judge compares with the base all the same.

    Attributes:
        masks: bool by parameter name, see `read_start_masks`.
    """

    masks: Mapping[str, Tensor]

    def origin(self, plan: AdaptPlan) -> None:
        """The base."""

    @torch.no_grad()
    def put_on(self, trainer: Trainer, features: Callable[[int], Tensor]) -> None:
        """See `StartingPoint.put_on`; a classifier starts anew, on the features under the masks.

        Raises:
            UsageError: the run has no scores, or a mask is over a tensor that has none.
        """
        plan, trained, masks = trainer.plan, trainer.source.trained, self.masks
        if not plan.mode.has_mask:
            raise ClashError(f"`start` with `train` {plan.train}: it trains no mask", "start", ["train"])
        strangers = sorted(masks.keys() - trained.keys())
        if any(not bool(masks[name].all()) for name in strangers):
            hint = ": give it `mask_only` late:0" if any(spec.startswith("late:") for spec in plan.mask_only) else ""
            words = f"`start` cuts weights of {strangers[0]}, which `recipe` {plan.recipe} leaves alone{hint}"
            raise ClashError(words, "start", ["recipe", "mask_only"])
        for name, scores in trained.items():
            if name in masks:
                scores.copy_(mirrored_scores(scores, masks[name].to(scores.device), plan.threshold))
        trainer.source.refresh()
        formed = trainer.source.masks()
        others = [name for name in formed if name in masks and not torch.equal(formed[name].cpu(), masks[name].cpu())]
        if others:
            raise ClashError(
                f"`start` cuts weights of {others[0]} that the run's `mask_kind` or `mask_only` keeps, or the other "
                "way round: give it the settings of the start",
                "start",
                ["mask_kind", "mask_only", "density"],
            )
        if head := trainer.team.from_first(lambda: trainer.objective.head_for(features)):
            trainer.objective.load_head(head)
