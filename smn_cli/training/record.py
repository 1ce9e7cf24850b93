"""What a run folder tells to later commands: its settings, its base, what it learned."""

import os
import platform
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from torch import Tensor

import smn_cli
from smn_cli.adapters.fingerprint import fingerprint
from smn_cli.adapters.statistics import round_statistics
from smn_cli.backbones.loading import Backbone, load_backbone
from smn_cli.config.plan import AdaptPlan
from smn_cli.data.checking import ImageSet
from smn_cli.data.classes import LabeledImages
from smn_cli.data.labeled import LabeledSplit
from smn_cli.data.preprocessing import Preprocessing
from smn_cli.errors import CheckpointError, MismatchError
from smn_cli.evaluation.classifier import LinearClassifier
from smn_cli.masking.largest import mask_of
from smn_cli.training.classifying import read_base_head
from smn_cli.training.distributed import launch_name, launched_size, was_restarted
from smn_cli.training.keeping import Keeper
from smn_cli.training.run_folder import RunFolder, is_run
from smn_cli.training.selecting import density_at


@dataclass(frozen=True)
class Learned:
    """What a run has to show for itself.

    Attributes:
        masks: bool by parameter name; all ones if nothing beat the base. Empty for the full fine-tuning baseline.
        weights: trained weights of that baseline; empty otherwise.
        norm_stats: adapted statistics; empty if frozen, or if nothing beat the base.
        step, num_steps: the step that the masks are of (0 is the base), and the length of the run.
        is_finished: whether the run has ended.
        judge_gain: of the judge's measure over the base, for the state that is kept; None if it was not judged.
        alarms: what went wrong, in words.
        classifier: of the state that is kept, in a run with labels; the base's own if nothing beat it.
    """

    masks: dict[str, Tensor]
    weights: dict[str, Tensor]
    norm_stats: dict[str, Tensor]
    step: int
    num_steps: int
    is_finished: bool
    judge_gain: float | None
    alarms: tuple[str, ...]
    classifier: LinearClassifier | None = None


@dataclass(frozen=True)
class Origin:
    """The state that a run started from where it is not the base: what its judge compares with, and it falls back to.

    Attributes:
        masks: bool by parameter name.
        norm_stats: running statistics, rounded as an adapter carries them; empty if they are frozen.
    """

    masks: dict[str, Tensor]
    norm_stats: dict[str, Tensor]

    def save(self, folder: RunFolder) -> None:
        """Keep it in a run's folder."""
        parts = {"mask": self.masks, "norm_stats": self.norm_stats}
        folder.save_tensors(
            ORIGIN_FILE,
            {f"{part}/{name}": tensor for part, tensors in parts.items() for name, tensor in tensors.items()},
        )

    @classmethod
    def read(cls, folder: RunFolder) -> "Origin | None":
        """Of a run's folder; None if the run started from its base.

        Raises:
            CheckpointError: it is damaged.
        """
        if not folder.has_tensors(ORIGIN_FILE):
            return None
        masks: dict[str, Tensor] = {}
        norm_stats: dict[str, Tensor] = {}
        for key, tensor in folder.load_tensors(ORIGIN_FILE).items():
            part, _, name = key.partition("/")
            (masks if part == "mask" else norm_stats)[name] = tensor
        return cls(masks, norm_stats)


ORIGIN_FILE = "origin.safetensors"


def read_learned(folder: RunFolder) -> Learned:
    """What a run's last checkpoint holds: its best state if it keeps the best, else its last.

    Where nothing was better than what the run started from, that is what it has learned: the base, or its `Origin`.

    Raises:
        CheckpointError: the folder is damaged.
    """
    plan = plan_of(folder.read_config(), folder)
    state = folder.load_state()
    try:
        trainer, keeper = state["trainer"], Keeper.from_state(state["keeper"])
        trained, step = dict(trainer["trained"]), int(trainer["step"])
        norm_stats = {name: round_statistics(tensor) for name, tensor in trainer["norm_stats"].items()}
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{folder.path / 'checkpoint'} is incomplete: {error}") from None
    is_finished = has_finished(plan, step, keeper)
    gain = (keeper.best_gain or None) if plan.keep == "best" else keeper.last_gain
    classifier = None
    if plan.num_classes:
        classifier = _kept_classifier(folder, plan, trainer["objective"], keeper)
    if plan.keep == "best" and (plan.train != "head" or plan.num_classes):
        step, norm_stats, trained_or_masks = keeper.best_step, keeper.norm_stats, keeper.tensors
    else:
        trained_or_masks = trained if plan.train == "full" else _binarized(trained, plan, step)
    masks, weights = (trained_or_masks, {}) if plan.train != "full" else ({}, trained_or_masks)
    if plan.train != "full" and not masks and (origin := Origin.read(folder)) is not None:
        masks, norm_stats = origin.masks, origin.norm_stats
    if plan.train != "full" and not masks:
        masks = {name: torch.ones_like(tensor, dtype=torch.bool) for name, tensor in trained.items()}
    return Learned(
        masks, weights, norm_stats, step, plan.num_steps, is_finished, gain, tuple(keeper.alarms), classifier
    )


def _kept_classifier(folder: RunFolder, plan: AdaptPlan, objective: dict[str, Any], keeper: Keeper) -> LinearClassifier:
    if plan.keep == "best" and not keeper.head:
        return read_base_head(folder)
    tensors = keeper.head if plan.keep == "best" else objective["classifier"]
    return LinearClassifier(tensors["weight"], tensors["bias"])


def is_own_restart(folder_path: Path) -> bool:
    """Whether this process was started by torchrun in place of one that died, in the run of that folder."""
    if not was_restarted() or not is_run(folder_path):
        return False
    return RunFolder.open(folder_path).read_config().get("launch") == launch_name()


def has_finished(plan: AdaptPlan, step: int, keeper: Keeper) -> bool:
    """Whether a run has nothing left to do: all steps taken, or stopped by an alarm while it keeps the best."""
    return step >= plan.num_steps or (plan.keep == "best" and bool(keeper.alarms))


def backbone_of_run(config: dict[str, Any], weights: Path | None) -> Backbone:
    """The base of a run: from a file if one is given or was, else timm's weights of the same tag.

    Raises:
        BackboneError: the weights cannot be had or do not fit.
    """
    source = weights or config["weights"] or None
    tagged = f"{config['arch']}.{config['tag']}" if config.get("tag") and source is None else config["arch"]
    return load_backbone(str(tagged), source)


def preprocessing_in(config: dict[str, Any], folder: RunFolder) -> Preprocessing:
    """How a run prepared its images.

    Raises:
        CheckpointError: the config does not say it in a usable way.
    """
    try:
        return Preprocessing.from_json(config["preprocessing"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"the preprocessing in {folder.path} is unusable: {error}") from None


def plan_of(config: dict[str, Any], folder: RunFolder) -> AdaptPlan:
    """The plan in a run's config.

    Raises:
        CheckpointError: it is incomplete.
    """
    try:
        return AdaptPlan.from_json(config["plan"])
    except (KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"the plan in {folder.path} is incomplete or of another version: {error}") from None


def check_run_base(config: dict[str, Any], backbone: Backbone) -> None:
    """Refuse a backbone other than the one a run was started with.

    Raises:
        MismatchError: the digests differ.
    """
    found = fingerprint(backbone.model.state_dict()).digest
    if found != config.get("base_digest"):
        raise MismatchError(
            f"this base is not the one the run was started with ({found[:12]}... instead of "
            f"{str(config.get('base_digest'))[:12]}...): give the same --weights"
        )


def restore_threads(config: dict[str, Any], folder: RunFolder) -> None:
    """Compute with as many threads as a run was started with: another number sums in another order.

    Raises:
        CheckpointError: the config does not say it in a usable way.
    """
    try:
        torch.set_num_threads(int(config["threads"]))
    except (TypeError, ValueError, RuntimeError):
        raise CheckpointError(f"{folder.path}: threads in config.json is {config['threads']!r}") from None


def describe_run(
    backbone: Backbone,
    plan: AdaptPlan,
    images: ImageSet,
    preprocessing: Preprocessing,
    *,
    weights: str,
    device: str,
    val: LabeledSplit | None,
    labeled: LabeledImages | None = None,
) -> dict[str, Any]:
    """The content of config.json."""
    return {
        "preprocessing": preprocessing.to_json(),
        "arch": backbone.arch,
        "tag": backbone.tag,
        "weights": str(Path(weights).resolve()) if weights else "",
        "base_digest": fingerprint(backbone.model.state_dict()).digest,
        "plan": plan.to_json(),
        "images": {"found": images.num_found, "good": len(images.good), "bad": len(images.bad)},
        "classes": list(labeled.classes) if labeled is not None else [],
        "device": device.partition(":")[0] if launched_size() > 1 else device,
        "processes": launched_size(),
        "launch": launch_name(),
        "judge": "held-out images" if val is None else f"labeled images, {val.origin}",
        "val": "" if val is None else str(val.folder.resolve()),
        "threads": torch.get_num_threads(),
        "versions": versions(),
        "platform": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs",
    }


def versions() -> dict[str, str]:
    """Versions that a result depends on."""
    return {
        "smn": smn_cli.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "timm": version("timm"),
        "numpy": np.__version__,
    }


def _binarized(scores: dict[str, Tensor], plan: AdaptPlan, step: int) -> dict[str, Tensor]:
    density = density_at(plan, step)
    return {name: mask_of(tensor, plan.threshold, density) for name, tensor in scores.items()}
