"""A run from its first step to its last, on disk as it goes: started, judged, interrupted, resumed."""

import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from smn_cli.backbones.loading import Backbone, checkpoint_gradients
from smn_cli.config.options import AdaptOptions
from smn_cli.config.plan import AdaptPlan
from smn_cli.data.images.validate import ImageSet
from smn_cli.data.labels.eval_split import LabeledSplit
from smn_cli.data.labels.labeled_images import LabeledImages
from smn_cli.data.views.loader import ViewLoader
from smn_cli.distributed import Team
from smn_cli.errors import CheckpointError, Interrupted, TrainingError
from smn_cli.evaluation.features import on_device
from smn_cli.judging.best_state import BestState
from smn_cli.judging.image_alarms import learnability_alarms
from smn_cli.judging.judges import Judgement, LabeledJudge, UnlabeledJudge
from smn_cli.masking.backbone import run_backbone
from smn_cli.runs.run_config import check_run_base, describe_run, plan_of, restore_threads
from smn_cli.runs.run_folder import RunFolder
from smn_cli.runs.run_labels import read_labels
from smn_cli.runs.run_result import has_finished
from smn_cli.training.mask_setup import names_to_train
from smn_cli.training.resolve_plan import place, preprocessing_of, resolve_plan
from smn_cli.training.setup import (
    ImageSplit,
    Progress,
    embed_for_teacher,
    make_classifier_judge,
    make_objective,
    make_unlabeled_judge,
    save_teacher_embedding,
    split_images,
)
from smn_cli.training.start_state import StartState, network_at_start
from smn_cli.training.trainer import StepReport, Trainer, make_source


@dataclass
class StopSignal:
    """Set `requested` from a signal handler; the run saves its state after the step at hand."""

    requested: bool = False


@dataclass(frozen=True)
class Execution:
    """How a run goes about its work; but for the device and rounding between processes, none of it changes the result.

    Attributes:
        device, num_workers: where to train, and how many processes load images.
        save_every_s: seconds between checkpoints.
        on_teacher_embedding: called with (images embedded, images in all) before the first step.
        on_judgement: called with (step, judgement) after every evaluation.
        team: the processes that share the run.
    """

    device: str = "cpu"
    num_workers: int = 0
    save_every_s: float = 60.0
    on_teacher_embedding: Progress | None = None
    on_judgement: Callable[[int, Judgement], None] | None = None
    team: Team = field(default_factory=Team)


class Session:
    """A trainer, its images, its judge and its folder. Get one from `start` or `resume`."""

    def __init__(
        self,
        folder: RunFolder,
        backbone: Backbone,
        plan: AdaptPlan,
        split: ImageSplit,
        execution: Execution,
        val: LabeledSplit | None = None,
    ) -> None:
        self.folder = folder
        self.backbone = backbone
        self.plan = plan
        self.split = split
        self.val = val
        self.execution = execution
        self.preprocessing = preprocessing_of(backbone, plan.views.global_size)
        if plan.grad_checkpoint:
            checkpoint_gradients(backbone.model)
        self.team = execution.team
        source, objective = make_source(backbone.model, plan), make_objective(folder, backbone, plan, split, self.team)
        self.trainer = Trainer(source, objective, plan, self.preprocessing.normalize, self.team)
        self.best_state = BestState()
        self._base_buffers = {name: buffer.clone() for name, buffer in backbone.model.named_buffers()}
        network = network_at_start(folder, backbone)
        self.panel: UnlabeledJudge = make_unlabeled_judge(folder, network, split, self.preprocessing, self.team)
        self.classified = make_classifier_judge(folder, backbone, split, self.preprocessing, val, self.team)
        self.labeled: LabeledJudge | None = None
        if val is not None and self.classified is None:
            self.labeled = LabeledJudge(val, self.preprocessing, network, self.team)

    @classmethod
    def start(
        cls,
        folder_path: Path,
        backbone: Backbone,
        images: ImageSet,
        options: AdaptOptions,
        *,
        weights: str = "",
        overwrite: bool = False,
        execution: Execution | None = None,
        val: LabeledSplit | None = None,
        plan: AdaptPlan | None = None,
        labeled: LabeledImages | None = None,
        start_state: StartState | None = None,
        begin: "Callable[[Session], None] | None" = None,
    ) -> "Session":
        """Plan a run, make its folder and let the frozen network look at the images.

        All processes of a team call this alike; the first one writes.

        Args:
            folder_path: becomes the run folder.
            backbone: as loaded; put on the device.
            images: checked images; settings follow from all that may be usable, also of those not looked at.
            options: settings asked for.
            weights: the weights file, remembered for later commands; empty for hub weights.
            overwrite: whether an existing run there may be replaced.
            execution: device, workers, how often to save.
            val: labeled images that judge instead of the held-out ones.
            plan: instead of the one that follows from options and images.
            labeled: classes of the images, for a run with labels.
            start_state: where to start, and what to be better than; the base if not given.
            begin: brings the run to another start before its first checkpoint; its base stays what to be better than.

        Raises:
            UsageError, DataError, BackboneError: the folder, the images or the sizes do not do.
        """
        execution = execution or Execution()
        team = execution.team
        place(backbone, execution.device)
        plan = plan or resolve_plan(options, images.num_usable, backbone, execution.device, labeled)
        names_to_train(backbone.model, plan)  # refuses what the network does not have before it looks at images
        working = preprocessing_of(backbone, plan.views.global_size)
        split = split_images(images.good, plan, labeled)
        team.check_shares(plan.batch_size, num_judging=len(split.held_out))
        embed = partial(embed_for_teacher, backbone, plan, split, working, num_workers=execution.num_workers, team=team)
        with RunFolder.create(folder_path, overwrite=overwrite) if team.is_first else nullcontext() as made:
            if made is not None:
                made.write_images(images.good, images.bad_lines())
                describe = partial(describe_run, backbone, plan, images, working, weights=weights, val=val)
                made.write_config(describe(device=execution.device, labeled=labeled))
                if start_state is not None:
                    start_state.origin(plan.threshold).save(made)
                embedded = embed(progress=execution.on_teacher_embedding)
                save_teacher_embedding(
                    made, backbone, plan, split, working, embedded, num_workers=execution.num_workers
                )
            else:
                embed()
            folder = made or RunFolder(folder_path)
            folder.path = team.from_first(lambda: folder.path)  # where it is in the making
            session = cls(folder, backbone, plan, split, execution, val)
            if start_state is not None:
                start_state.put_on(session.trainer)
            if begin is not None:
                begin(session)
            if plan.keep == "best":
                session.best_state.alarms = team.from_first(session.first_alarms)
            session._save()
        folder.path = folder_path
        team.wait()
        return session

    @classmethod
    def resume(
        cls,
        folder_path: Path,
        backbone: Backbone,
        *,
        execution: Execution | None = None,
        val: LabeledSplit | None = None,
    ) -> "Session":
        """Continue a run at its last checkpoint.

        Raises:
            CheckpointError: the folder is no run, or damaged.
            MismatchError: the backbone is not the one it was started with.
        """
        execution = execution or Execution()
        folder = RunFolder.open(folder_path)
        config = folder.read_config()
        plan = plan_of(config, folder)
        check_run_base(config, backbone)
        state = folder.load_state()
        place(backbone, execution.device)
        restore_threads(config, folder)
        split = split_images(folder.read_images(), plan, read_labels(folder, config) if plan.num_classes else None)
        session = cls(folder, backbone, plan, split, execution, val)
        try:
            session.trainer.load_state(state["trainer"])
            session.best_state = BestState.from_state(state["keeper"])
        except (KeyError, ValueError, RuntimeError, TypeError) as error:
            raise CheckpointError(f"{folder.path} does not fit its own settings: {error}") from None
        if execution.team.is_first:
            folder.keep_metrics_until(session.trainer.step)
        execution.team.wait()
        return session

    @property
    def is_finished(self) -> bool:
        """Whether there is nothing left to do: all steps taken, or stopped by an alarm."""
        return has_finished(self.plan, self.trainer.step, self.best_state)

    def close(self) -> None:
        """Bring the backbone back to the base, whose statistics a run may have adapted in place."""
        with torch.no_grad():
            for name, buffer in self.backbone.model.named_buffers():
                buffer.copy_(self._base_buffers[name])

    def steps(self, stop: StopSignal | None = None) -> Iterator[StepReport]:
        """Take the remaining steps; log each, judge now and then, save every `save_every_s` seconds and at the end.

        Raises:
            Interrupted: `stop` was requested; the state is saved.
            TrainingError: training cannot go on and the last state was to be kept; the last checkpoint stays.
        """
        plan, trainer = self.plan, self.trainer
        part = (self.team.rank, self.team.size)
        loader = ViewLoader(
            self.split.training, plan.views, plan.batch_size, plan.seed, self.execution.num_workers, part
        )
        last_save = time.monotonic()
        if self.is_finished:
            return
        try:
            for report in trainer.run(loader.batches(trainer.step, plan.num_steps)):
                self._log(report.to_json())
                if report.step % plan.eval_every == 0 or report.step == plan.num_steps:
                    self._judge(report.step)
                wants_stop = self.team.any(stop is not None and stop.requested) and not self.is_finished
                is_due = time.monotonic() - last_save >= self.execution.save_every_s
                if wants_stop or self.is_finished or is_due:
                    self._save()
                    last_save = time.monotonic()
                yield report
                if wants_stop:
                    raise Interrupted(
                        f"stopped after step {report.step} of {plan.num_steps}; the state is saved: "
                        f"continue with smn adapt --resume --out {self.folder.path}"
                    )
                if self.is_finished:
                    return
        except TrainingError as error:
            if plan.keep == "last":
                raise
            self.best_state.alarms.append(str(error))
            self._save()

    def network(self) -> Callable[[Tensor], Tensor]:
        """The adapted network as it is now, in eval mode."""
        weights = self.trainer.source.final_weights() | self.trainer.norm_stats()
        return on_device(lambda images: run_backbone(self.backbone.model, images, weights), self.trainer.device)

    def first_alarms(self) -> list[str]:
        """What speaks against the images before the first step; with labels, what there is to learn is known."""
        network = on_device(self.backbone.model, self.trainer.device)
        num_images = min(500, len(self.panel.images.paths))
        alarms = [] if self.classified else learnability_alarms(network, self.panel.images.batches(num_images))
        if not alarms and self.val is None and self.plan.num_holdout == 0:
            alarms = [
                f"too few: {num_images} images leave none to judge by; add images, lower --batch-size, give --val, "
                "or take the last state unjudged with --keep last"
            ]
        return alarms

    def _judge(self, step: int) -> None:
        network = self.network()
        judgement = self.panel.judge(network)
        if self.labeled is not None:
            labeled = self.labeled.judge(network)
            judgement = Judgement(
                labeled.difference, True, {**judgement.measures, **labeled.measures}, judgement.alarms
            )
        classifier = self.trainer.classifier()
        if self.classified is not None and classifier is not None:
            judgement = self.classified.judge(network, classifier, beside=judgement.measures)
        tensors = self.trainer.source.masks() or dict(self.trainer.source.trained)
        self.best_state.consider(step, judgement, tensors, self.trainer.norm_stats(), classifier)
        self.best_state.alarms = self.team.from_first(lambda: self.best_state.alarms)
        self._log({"step": step, "evaluation": judgement.to_json()})
        if self.execution.on_judgement is not None:
            self.execution.on_judgement(step, judgement)

    def _log(self, record: dict[str, Any]) -> None:
        if self.team.is_first:
            self.folder.append_metrics(record)

    def _save(self) -> None:
        if not self.team.is_first:
            return
        self.folder.save_state({"trainer": self.trainer.state(), "keeper": self.best_state.state()})
