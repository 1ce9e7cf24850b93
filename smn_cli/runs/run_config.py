"""What a run's config.json says: its settings, its base, its images, the versions that it was made with."""

import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision

import smn_cli
from smn_cli.adapters.fingerprint import fingerprint
from smn_cli.backbones.loading import Backbone, load_backbone
from smn_cli.backbones.names import full_name
from smn_cli.backbones.resnets import PLAIN_RESNETS
from smn_cli.config.plan import AdaptPlan
from smn_cli.data.images.validate import ImageSet
from smn_cli.data.labels.eval_split import LabeledSplit
from smn_cli.data.labels.labeled_images import LabeledImages
from smn_cli.data.preprocessing import Preprocessing
from smn_cli.distributed import is_of_launch, launched_size, was_restarted
from smn_cli.errors import CheckpointError, MismatchError
from smn_cli.objectives.table import OBJECTIVES
from smn_cli.runs.run_folder import RunFolder, is_run


def is_own_restart(folder_path: Path) -> bool:
    """Whether this process was started by torchrun in place of one that died, in the run of that folder."""
    if not was_restarted() or not is_run(folder_path):
        return False
    return is_of_launch(str(RunFolder.open(folder_path).read_config().get("launch")))


def backbone_of_run(config: dict[str, Any], weights: Path | None, *, is_quick: bool = False) -> Backbone:
    """The base of a run: from a file if one is given or was, else timm's weights of the same tag.

    Args:
        config: of the run.
        weights: a file instead of the run's own.
        is_quick: whether no random numbers are drawn for a network that its file fills whole.

    Raises:
        BackboneError: the weights cannot be had or do not fit.
    """
    source = weights or config["weights"] or None
    tag = str(config.get("tag") or "") if source is None else ""
    is_whole_in_file = str(config["arch"]) in PLAIN_RESNETS
    is_run = not (is_quick and is_whole_in_file)
    return load_backbone(full_name(str(config["arch"]), tag), source, is_run=is_run)


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
        plan = AdaptPlan.from_json(config["plan"])
    except (KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"the plan in {folder.path} is incomplete or of another version: {error}") from None
    if plan.objective not in OBJECTIVES:
        raise CheckpointError(
            f"the objective {plan.objective!r} of {folder.path} is not known: it is of another version"
        )
    return plan


def check_run_base(config: dict[str, Any], backbone: Backbone) -> None:
    """Refuse a backbone other than the one a run was started with.

    Raises:
        MismatchError: the digests differ.
    """
    found = fingerprint(backbone.model.state_dict()).digest
    if found != config.get("base_digest"):
        raise MismatchError(
            f"this base is not the one the run was started with ({found[:12]}... instead of "
            f"{str(config.get('base_digest'))[:12]}...): give the same `weights`"
        )


def restore_threads(config: dict[str, Any], folder: RunFolder) -> int:
    """Compute with as many threads as a run was started with: another number sums in another order.

    Returns:
        The number before, for who wants it back.

    Raises:
        CheckpointError: the config does not say it in a usable way.
    """
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(int(config["threads"]))
    except (TypeError, ValueError, RuntimeError):
        raise CheckpointError(f"{folder.path}: threads in config.json is {config['threads']!r}") from None
    return before


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
    teachers: list[dict[str, Any]] | None = None,
    launch: str = "",
) -> dict[str, Any]:
    """The content of config.json; `teachers` are the facts of those that the plan names, `launch` is `launch_names`."""
    return {
        "preprocessing": preprocessing.to_json(),
        "arch": backbone.arch,
        "tag": backbone.tag,
        "weights": str(Path(weights).resolve()) if weights else "",
        "base_digest": fingerprint(backbone.model.state_dict()).digest,
        "plan": plan.to_json(),
        "images": {"found": images.num_found, "good": len(images.good), "bad": len(images.bad)},
        "teachers": teachers or [],
        "classes": list(labeled.classes) if labeled is not None else [],
        "device": device.partition(":")[0] if launched_size() > 1 else device,
        "processes": launched_size(),
        "launch": launch,
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
