"""A run from its first step to its last, on disk as it goes: started, interrupted, resumed."""

import os
import platform
import time
from collections.abc import Iterator
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
from smn_cli.backbones.loading import Backbone, check_sizes
from smn_cli.config import AdaptOptions, AdaptPlan, make_plan
from smn_cli.data.checking import ImageSet
from smn_cli.data.loading import ViewLoader
from smn_cli.data.preprocessing import Preprocessing
from smn_cli.errors import CheckpointError, Interrupted, MismatchError
from smn_cli.masking.binarize import binarize
from smn_cli.training.run_folder import RunFolder
from smn_cli.training.trainer import StepReport, Trainer


@dataclass
class StopSignal:
    """Set `requested` from a signal handler; the run saves its state after the step at hand."""

    requested: bool = False


@dataclass(frozen=True)
class RunOptions:
    """How a run goes about its work; none of it changes the result on a given machine."""

    device: str = "cpu"
    num_workers: int = 0
    save_every_s: float = 60.0


class Session:
    """A trainer, its images and its folder. Get one from `start` or `resume`."""

    def __init__(
        self, folder: RunFolder, backbone: Backbone, plan: AdaptPlan, paths: list[Path], options: RunOptions
    ) -> None:
        self.folder = folder
        self.backbone = backbone
        self.plan = plan
        self.paths = paths
        self.options = options
        self.preprocessing = preprocessing_of(backbone, plan.views.global_size)
        backbone.model.to(torch.device(options.device)).to(memory_format=torch.channels_last)
        self.trainer = Trainer(backbone.model, backbone.num_features, plan, self.preprocessing.normalize)

    @classmethod
    def start(
        cls,
        folder_path: Path,
        backbone: Backbone,
        images: ImageSet,
        wishes: AdaptOptions,
        *,
        weights: str = "",
        overwrite: bool = False,
        options: RunOptions | None = None,
    ) -> "Session":
        """Plan a run and make its folder.

        Args:
            folder_path: becomes the run folder.
            backbone: as loaded; put on the device.
            images: checked images.
            wishes: settings asked for.
            weights: the weights file, remembered for later commands; empty for hub weights.
            overwrite: whether an existing run there may be replaced.
            options: device, workers, how often to save.

        Raises:
            UsageError, DataError, BackboneError: the folder, the images or the sizes do not do.
        """
        options = options or RunOptions()
        plan = make_plan(wishes, len(images.good))
        sizes = {plan.views.global_size} | ({plan.views.local_size} if plan.views.num_local else set())
        check_sizes(backbone, sorted(sizes))
        base_digest = fingerprint(backbone.model.state_dict()).digest
        folder = RunFolder.create(folder_path, overwrite=overwrite)
        session = cls(folder, backbone, plan, images.good, options)
        folder.write_images(images.good, images.bad_lines())
        folder.write_config(_config(session, images, weights, base_digest))
        folder.save_state(session.trainer.state())
        return session

    @classmethod
    def resume(cls, folder_path: Path, backbone: Backbone, *, options: RunOptions | None = None) -> "Session":
        """Continue a run at its last checkpoint.

        Raises:
            CheckpointError: the folder is no run, or damaged.
            MismatchError: the backbone is not the one it was started with.
        """
        options = options or RunOptions()
        folder = RunFolder.open(folder_path)
        config = folder.read_config()
        plan = plan_of(config, folder)
        check_run_base(config, backbone)
        torch.set_num_threads(int(config["threads"]))  # another number sums in another order
        session = cls(folder, backbone, plan, folder.read_images(), options)
        try:
            session.trainer.load_state(folder.load_state())
        except (KeyError, ValueError, RuntimeError) as error:
            raise CheckpointError(f"{folder.path} does not fit its own settings: {error}") from None
        folder.keep_metrics_until(session.trainer.step)
        return session

    def steps(self, stop: StopSignal | None = None) -> Iterator[StepReport]:
        """Take the remaining steps; log each, save every `save_every_s` seconds and at the end.

        Raises:
            Interrupted: `stop` was requested; the state is saved.
            TrainingError: training cannot go on; the last checkpoint stays.
        """
        plan, trainer = self.plan, self.trainer
        loader = ViewLoader(self.paths, plan.views, plan.batch_size, plan.seed, self.options.num_workers)
        last_save = time.monotonic()
        for report in trainer.run(loader.batches(trainer.step, plan.num_steps)):
            self.folder.append_metrics(report.to_json())
            wants_stop = stop is not None and stop.requested and report.step < plan.num_steps
            if wants_stop or report.step == plan.num_steps or time.monotonic() - last_save >= self.options.save_every_s:
                self.folder.save_state(trainer.state())
                last_save = time.monotonic()
            yield report
            if wants_stop:
                raise Interrupted(
                    f"stopped after step {report.step} of {plan.num_steps}; the state is saved: "
                    f"continue with smn adapt --resume --out {self.folder.path}"
                )


@dataclass(frozen=True)
class FinishedMasks:
    """What a run has learned so far: bool masks and, if adapted, statistics; `step` of `num_steps` taken."""

    masks: dict[str, Tensor]
    norm_stats: dict[str, Tensor]
    step: int
    num_steps: int


def read_masks(folder: RunFolder) -> FinishedMasks:
    """Masks of a run's last checkpoint, without building its trainer.

    Raises:
        CheckpointError: the folder is damaged.
    """
    plan = plan_of(folder.read_config(), folder)
    state = folder.load_state()
    masks = {name: binarize(scores, plan.threshold) for name, scores in state["scores"].items()}
    return FinishedMasks(masks, dict(state["norm_stats"]), int(state["step"]), plan.num_steps)


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


def preprocessing_of(backbone: Backbone, size: int) -> Preprocessing:
    """How images reach this backbone at a given size."""
    return Preprocessing(size, backbone.mean, backbone.std, backbone.interpolation)


def _config(session: Session, images: ImageSet, weights: str, base_digest: str) -> dict[str, Any]:
    return {
        "arch": session.backbone.arch,
        "tag": session.backbone.tag,
        "weights": str(Path(weights).resolve()) if weights else "",
        "base_digest": base_digest,
        "plan": session.plan.to_json(),
        "preprocessing": session.preprocessing.to_json(),
        "images": {"good": len(images.good), "bad": len(images.bad)},
        "device": session.options.device,
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
