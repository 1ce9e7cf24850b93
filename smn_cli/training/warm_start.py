"""A run that starts with the mask of another one, or of an adapter: labels after no labels, for one.

It is judged against the base like any run. A cascade's expert starts at more than a mask, and is judged against that:
see `start_state`.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from smn_cli.adapters.adapter import load_adapter
from smn_cli.backbones.loading import Backbone
from smn_cli.data.views.loader import image_batches
from smn_cli.errors import UsageError
from smn_cli.evaluation.classifier import DECAYS, MAX_IMAGES, LinearClassifier, fit_classifier
from smn_cli.evaluation.features import extract_features
from smn_cli.masking.scores import nearest_scores
from smn_cli.objectives.supervised import SupervisedObjective
from smn_cli.runs.run_config import check_run_base, plan_of
from smn_cli.runs.run_folder import RunFolder
from smn_cli.runs.run_result import read_learned
from smn_cli.training.session import Session


def read_start_masks(path: Path, backbone: Backbone) -> dict[str, Tensor]:
    """Masks that a run has kept, or that an adapter file holds.

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
        if plan_of(config, folder).train == "full":
            raise UsageError(
                f"--start {path} trained the weights themselves (--train full): it has no mask to start from"
            )
        masks, has_statistics = learned.masks, bool(learned.norm_stats)
    else:
        adapter = load_adapter(path)
        base = backbone.model.state_dict()
        adapter.rebuild(base)  # refuses any other base
        masks, has_statistics = adapter.masks(base), bool(adapter.header.norm_stats)
    if has_statistics:
        raise UsageError(f"--start {path} carries normalisation statistics: start from a mask that was learned without")
    return masks


def mirrored_scores(scores: Tensor, mask: Tensor, threshold: float) -> Tensor:
    """Scores that give a mask: where they do not, they are as far on the other side of the threshold.

    A score at the threshold that should be kept is put just above it; an infinite one stays, as its weight does.
    """
    turned = torch.where((scores > threshold) == mask, scores, 2 * threshold - scores)
    return torch.where(scores.isinf(), scores, nearest_scores(turned, mask, threshold))


@torch.no_grad()
def start_with(session: Session, masks: Mapping[str, Tensor]) -> None:
    """Bring a run that has not taken a step to given masks; a classifier starts anew, on the features under them.

    Raises:
        UsageError: the run has no scores, or a mask is over a tensor that has none.
    """
    trainer = session.trainer
    if session.plan.train == "full":
        raise UsageError("--start with --train full: it trains no mask")
    strangers = sorted(masks.keys() - trainer.source.trained.keys())
    if any(not bool(masks[name].all()) for name in strangers):
        raise UsageError(f"--start cuts weights of {strangers[0]}, which --recipe {session.plan.recipe} leaves alone")
    for name, scores in trainer.source.trained.items():
        if name in masks:
            scores.copy_(mirrored_scores(scores, masks[name].to(scores.device), session.plan.threshold))
    trainer.source.refresh()
    formed = trainer.source.masks()
    others = [name for name in formed if name in masks and not torch.equal(formed[name].cpu(), masks[name].cpu())]
    if others:
        raise UsageError(
            f"--start cuts weights of {others[0]} that the run's --mask-kind or --mask-only keeps, or the other way "
            "round: give it the settings of the start"
        )
    if isinstance(trainer.objective, SupervisedObjective) and trainer.objective.starts_fitted:
        labels = trainer.objective.labels.cpu()
        trainer.objective.put(session.team.from_first(lambda: _fitted(session, labels)))


def _fitted(session: Session, labels: Tensor) -> LinearClassifier:
    """A classifier of the training images as the network sees them now."""
    training = session.split.training[:MAX_IMAGES]
    batches = image_batches(training, session.preprocessing, num_workers=session.execution.num_workers)
    features = extract_features(session.network(), batches)
    return fit_classifier(features, labels[: len(training)], session.plan.num_classes, decay=DECAYS[0])
