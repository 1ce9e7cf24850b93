"""A run from its first step to its last, on disk as it goes: started, judged, interrupted, resumed."""

import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from smn_cli.backbones.checkpointing import checkpoint_gradients
from smn_cli.backbones.loading import Backbone, to_device
from smn_cli.data.labels.eval_split import LabeledSplit
from smn_cli.data.views.loader import RepeatedViewLoader, ViewBatch, ViewLoader
from smn_cli.errors import Interrupted, TrainingError
from smn_cli.evaluation.classifier import LinearClassifier
from smn_cli.evaluation.features import Network
from smn_cli.judging.best_state import BestState
from smn_cli.judging.judges import Judge
from smn_cli.judging.looks import Candidate
from smn_cli.objectives.table import objective_of
from smn_cli.recipes import ViewPlan
from smn_cli.runs.checked_files import fitting
from smn_cli.runs.run_config import check_run_base, plan_of, restore_threads
from smn_cli.runs.run_folder import BEST_STATE, RunFolder
from smn_cli.runs.run_labels import read_labels
from smn_cli.runs.run_result import has_finished
from smn_cli.training.first_alarms import first_alarms
from smn_cli.training.image_split import drawn_for, split_images
from smn_cli.training.mask_setup import names_to_train
from smn_cli.training.resolve_plan import resolve_plan
from smn_cli.training.run_context import Execution, RunContext, RunRequest
from smn_cli.training.run_logs import RunLogs, opened_logs
from smn_cli.training.setup import Prepared, choose_judge, make_health_judge, make_objective, prepare_run, what_counts
from smn_cli.training.start_state import StartingPoint
from smn_cli.training.trainer import StepReport, Trainer, make_source
from smn_cli.training.trunk_cache import TrunkBatch, TrunkCache
from smn_cli.training.trunk_plan import cut_of_plan


@dataclass
class StopSignal:
    """Set `requested` from a signal handler; the run saves its state after the step at hand."""

    requested: bool = False


class Session:
    """A trainer, its images, its judge and its folder. Get one from `start` or `resume`."""

    def __init__(self, context: RunContext, preparation: Prepared) -> None:
        self.context = context
        self.folder, self.backbone = context.folder, context.backbone
        self.plan, self.split = context.plan, context.split
        self.execution, self.team, self.preprocessing = context.execution, context.execution.team, context.preprocessing
        model, plan = self.backbone.model, self.plan
        source, objective = make_source(model, plan), make_objective(context, preparation)
        self.trainer = Trainer(source, objective, plan, self.preprocessing.normalize, self.team, context.worked)
        if plan.grad_checkpoint:
            checkpoint_gradients(self.trainer.network.network)
        self.best_state = BestState()
        self._threads_before: int | None = None
        self._kept: TrunkCache | None = None
        self._logs: RunLogs | None = None
        self._base_buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
        self.execution.tell(f"the judge looks at the base, {len(self.split.held_out)} images held out")
        self.health = make_health_judge(context, preparation)
        self.judge: Judge = choose_judge(context, preparation, self.health)
        self.execution.tell(f"it counts {what_counts(self.judge, self.health)}; more than the base is better")

    @classmethod
    def start(
        cls,
        request: RunRequest,
        backbone: Backbone,
        *,
        execution: Execution | None = None,
        start: StartingPoint | None = None,
    ) -> "Session":
        """Plan a run, make its folder and embed the images for the teacher.

        All processes of a team call this alike; the first one writes.

        Args:
            request: what is asked for.
            backbone: as loaded; put on the device.
            execution: device, workers, how often to save.
            start: where to start, and what to be better than; the recipe's scores and the base if not given.

        Raises:
            UsageError, DataError, BackboneError: the folder, the images or the sizes do not do.
        """
        execution = execution or Execution()
        team, images = execution.team, request.images
        to_device(backbone, execution.device)
        plan = request.plan
        if plan is None:
            own = resolve_plan(
                request.options,
                images.num_usable,
                backbone,
                execution.device,
                request.labeled,
                paths=images.good,
                tell=execution.tell if team.is_first else None,
                num_processes=team.size,
            )
            plan = team.from_first(lambda: own)  # the first process alone measures which precision is fast
        names_to_train(backbone.model, plan)  # refuses what the network does not have before it looks at images
        request = replace(request, images=drawn_for(plan, images))
        split = split_images(request.images.good, plan, request.labeled)
        objective_of(plan).check_number(len(split.training))
        team.check_shares(plan.batch_size, num_judging=len(split.held_out))
        making = RunFolder.create(request.out, overwrite=request.overwrite) if team.is_first else nullcontext()
        with making as made:
            folder = made or RunFolder(request.out)
            folder.path = team.from_first(lambda: folder.path)  # where it is in the making
            context = RunContext(folder, backbone, plan, split, execution, request.val)
            session = cls(context, prepare_run(context, request, start))
            if start is not None:
                start.put_on(session.trainer, session.features)
            if plan.keep == "best" and plan.num_steps:
                is_expert = request.plan is not None  # of a cascade, whose dispatcher went through this
                session.best_state.alarms = team.from_first(lambda: session.first_alarms(is_vouched_for=is_expert))
            session._save()
        context.folder.path = request.out
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
        if execution.team.is_first:
            folder.hold()
        try:
            return cls._resumed(folder, backbone, execution, val)
        except BaseException:
            folder.release()
            raise

    @classmethod
    def _resumed(
        cls, folder: RunFolder, backbone: Backbone, execution: Execution, val: LabeledSplit | None
    ) -> "Session":
        config = folder.read_config()
        plan = plan_of(config, folder)
        check_run_base(config, backbone)
        state = folder.load_state()
        to_device(backbone, execution.device)
        threads_before = restore_threads(config, folder)
        with fitting(folder.path):
            split = split_images(folder.read_images(), plan, read_labels(folder, config) if plan.num_classes else None)
            context = RunContext(folder, backbone, plan, split, execution, val)
            session = cls(context, Prepared.read(context))
            session._threads_before = threads_before
            session.trainer.load_state(state["trainer"])
            session.best_state = BestState.from_state(state[BEST_STATE])
        if session.team.is_first:
            folder.keep_metrics_until(session.trainer.step)
        session.team.wait()
        return session

    @property
    def is_finished(self) -> bool:
        """Whether there is nothing left to do: all steps taken, or stopped by an alarm."""
        return has_finished(self.plan, self.trainer.step, self.best_state)

    def close(self) -> None:
        """Bring the backbone back to the base, whose statistics a run may have adapted in place, and the threads.

        Other processes may work in the folder again.
        """
        self.folder.release()
        if self._threads_before is not None:
            torch.set_num_threads(self._threads_before)
        with torch.no_grad():
            for name, buffer in self.backbone.model.named_buffers():
                buffer.copy_(self._base_buffers[name])

    def steps(self, stop: StopSignal | None = None) -> Iterator[StepReport]:
        """Take the remaining steps; log each, judge now and then, save every `save_every_s` seconds and at the end.

        Raises:
            Interrupted: `stop` was requested; the state is saved.
            TrainingError: training cannot go on and the last state was to be kept; the last checkpoint stays.
            UsageError: a log cannot be opened; the state is as it was.
        """
        if self.is_finished:
            return
        self.look_ahead(stop)
        with opened_logs(
            self.execution.logs if self.team.is_first else (),
            self.folder.path,
            self.plan.to_json(),
            self.folder.read_metrics(),
            step=self.trainer.step,
            tell=self.execution.tell,
        ) as self._logs:
            yield from self._take_steps(stop)

    def _take_steps(self, stop: StopSignal | None) -> Iterator[StepReport]:
        plan, trainer = self.plan, self.trainer
        loader = ViewLoader(*self._loading)
        batches: Iterator[ViewBatch | TrunkBatch] = loader.batches(trainer.step, plan.num_steps)
        if self._kept is not None:
            batches = self._kept.batches(loader, trainer.step, plan.num_steps)
        last_save = time.monotonic()
        try:
            for report in trainer.run(batches):
                self._log(report.to_json())
                if report.step % plan.eval_every == 0 or report.step == plan.num_steps:
                    self._evaluate(report.step)
                wants_stop = self.team.any(stop is not None and stop.requested) and not self.is_finished
                is_due = time.monotonic() - last_save >= self.execution.save_every_s
                if wants_stop or self.is_finished or is_due:
                    self._save()
                    last_save = time.monotonic()
                yield report
                if wants_stop:
                    raise self._interrupted()
                if self.is_finished:
                    return
        except TrainingError as error:
            if plan.keep == "last":
                raise
            self.best_state.alarms.append(str(error))
            self._save()

    def look_ahead(self, stop: StopSignal | None = None) -> None:
        """Let the frozen first blocks look at the views that are kept, if any are; `steps` does it if nobody did.

        Raises:
            Interrupted: `stop` was requested; the state is as it was.
            TrainingError: there is no room to keep it.
        """
        plan, trainer = self.plan, self.trainer
        if self._kept is not None or not plan.cached_views or self.is_finished:
            return

        def tick(done: int, total: int) -> None:
            if self.execution.on_trunk is not None:
                self.execution.on_trunk(done, total)
            if self.team.any(stop is not None and stop.requested):
                raise self._interrupted()

        network = cut_of_plan(self.backbone, plan, trainer.network.network)
        self._kept = TrunkCache.filled(
            network,
            RepeatedViewLoader(*self._loading),
            partial(trainer.activations, network),
            num_draws=plan.cached_views,
            folder=self.folder.path,
            tick=tick,
            team=self.team,
        )

    @property
    def _loading(self) -> tuple[list[Path], ViewPlan, int, int, int, tuple[int, int]]:
        plan, part = self.plan, (self.team.rank, self.team.size)
        return self.split.training, plan.views, plan.batch_size, plan.seed, self.execution.num_workers, part

    def _interrupted(self) -> Interrupted:
        return Interrupted(
            f"stopped after step {self.trainer.step} of {self.plan.num_steps}; the state is saved: "
            f"continue with `resume` and `out` {self.folder.path}"
        )

    def network(self) -> Network:
        """The adapted network as it is now, in eval mode."""
        return self.context.network(self._weights)

    def candidate(self, classifier: LinearClassifier | None = None) -> Candidate:
        """The adapted network as it is now, for a judge."""
        return self.context.candidate(self._weights, classifier)

    @property
    def _weights(self) -> dict[str, Tensor]:
        return self.trainer.source.final_weights() | self.trainer.norm_stats()

    def features(self, num_images: int) -> Tensor:
        """(N, F) of the first training images, under the network as it is now."""
        return self.context.features(self.network(), self.split.training[:num_images])

    def first_alarms(self, *, is_vouched_for: bool = False) -> list[str]:
        """What speaks against the images before the first step; with labels, what there is to learn is known.

        Args:
            is_vouched_for: whether a run like this has been judged, so that its kind of images is in no doubt.
        """
        return first_alarms(self.context, self.health, is_vouched_for=is_vouched_for)

    def _evaluate(self, step: int) -> None:
        classifier = self.trainer.objective.classifier()
        judgement = self.judge.judge(self.candidate(classifier))
        tensors = self.trainer.source.masks() or dict(self.trainer.source.trained)
        is_best = self.best_state.consider(step, judgement, tensors, self.trainer.norm_stats(), classifier)
        if is_best or self.plan.keep == "last":
            self.health.remember(step)  # for the report
        self.best_state.alarms = self.team.from_first(lambda: self.best_state.alarms)
        self._log({"step": step, "evaluation": judgement.to_json()})
        if self.execution.on_judgement is not None:
            self.execution.on_judgement(step, judgement)

    def _log(self, record: dict[str, Any]) -> None:
        if self.team.is_first:
            self.folder.append_metrics(record)
        if self._logs is not None:
            self._logs.write(record)

    def _save(self) -> None:
        if not self.team.is_first:
            return
        self.folder.save_state({"trainer": self.trainer.state(), BEST_STATE: self.best_state.state()})
