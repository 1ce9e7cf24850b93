"""A run from its first step to its last, on disk as it goes: started, judged, interrupted, resumed."""

import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from smn_cli.backbones.loading import Backbone, checkpoint_gradients, to_device
from smn_cli.config.teachers import parse_teacher
from smn_cli.data.images.sizes import usual_short_side
from smn_cli.data.labels.eval_split import LabeledSplit
from smn_cli.data.views.loader import ViewLoader
from smn_cli.errors import CheckpointError, Interrupted, TrainingError
from smn_cli.evaluation.features import Network
from smn_cli.judging.best_state import BestState
from smn_cli.judging.image_alarms import enlargement_alarms, familiarity_alarms, learnability_alarms
from smn_cli.judging.judges import Candidate, Judge
from smn_cli.masking.backbone import run_backbone
from smn_cli.objectives.table import objective_of
from smn_cli.runs.run_config import check_run_base, plan_of, restore_threads
from smn_cli.runs.run_folder import BEST_STATE, RunFolder
from smn_cli.runs.run_labels import read_labels
from smn_cli.runs.run_result import has_finished
from smn_cli.training.image_split import split_images
from smn_cli.training.mask_setup import names_to_train
from smn_cli.training.resolve_plan import resolve_plan
from smn_cli.training.run_context import Execution, RunContext, RunRequest
from smn_cli.training.setup import Prepared, choose_judge, make_health_judge, make_objective, prepare_run
from smn_cli.training.start_state import StartingPoint
from smn_cli.training.teachers import NUM_CERTIFYING, teacher_alarms
from smn_cli.training.trainer import StepReport, Trainer, make_source


@dataclass
class StopSignal:
    """Set `requested` from a signal handler; the run saves its state after the step at hand."""

    requested: bool = False


class Session:
    """A trainer, its images, its judge and its folder. Get one from `start` or `resume`."""

    def __init__(self, context: RunContext, preparation: Prepared) -> None:
        self.context = context
        self.folder, self.backbone, self.plan, self.split = (
            context.folder,
            context.backbone,
            context.plan,
            context.split,
        )
        self.execution, self.team = context.execution, context.execution.team
        self.preprocessing = context.preprocessing
        model, plan = self.backbone.model, self.plan
        if plan.grad_checkpoint:
            checkpoint_gradients(model)
        source, objective = make_source(model, plan), make_objective(context, preparation)
        self.trainer = Trainer(source, objective, plan, self.preprocessing.normalize, self.team)
        self.best_state = BestState()
        self._threads_before: int | None = None
        self._base_buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
        self.execution.tell(f"the judge looks at the base, {len(self.split.held_out)} images held out")
        self.health = make_health_judge(context, preparation)
        self.judge: Judge = choose_judge(context, preparation, self.health)

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
                tell=execution.tell if team.is_first else None,
            )
            plan = team.from_first(lambda: own)  # the first process alone measures which precision is fast
        names_to_train(backbone.model, plan)  # refuses what the network does not have before it looks at images
        split = split_images(images.good, plan, request.labeled)
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
            if plan.keep == "best":
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
        config = folder.read_config()
        plan = plan_of(config, folder)
        check_run_base(config, backbone)
        state = folder.load_state()
        to_device(backbone, execution.device)
        threads_before = restore_threads(config, folder)
        split = split_images(folder.read_images(), plan, read_labels(folder, config) if plan.num_classes else None)
        context = RunContext(folder, backbone, plan, split, execution, val)
        session = cls(context, Prepared.read(context))
        session._threads_before = threads_before
        try:
            session.trainer.load_state(state["trainer"])
            session.best_state = BestState.from_state(state[BEST_STATE])
        except (KeyError, ValueError, RuntimeError, TypeError) as error:
            raise CheckpointError(f"{folder.path} does not fit its own settings: {error}") from None
        if session.team.is_first:
            folder.keep_metrics_until(session.trainer.step)
        session.team.wait()
        return session

    @property
    def is_finished(self) -> bool:
        """Whether there is nothing left to do: all steps taken, or stopped by an alarm."""
        return has_finished(self.plan, self.trainer.step, self.best_state)

    def close(self) -> None:
        """Bring the backbone back to the base, whose statistics a run may have adapted in place, and the threads."""
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
                    self._evaluate(report.step)
                wants_stop = self.team.any(stop is not None and stop.requested) and not self.is_finished
                is_due = time.monotonic() - last_save >= self.execution.save_every_s
                if wants_stop or self.is_finished or is_due:
                    self._save()
                    last_save = time.monotonic()
                yield report
                if wants_stop:
                    raise Interrupted(
                        f"stopped after step {report.step} of {plan.num_steps}; the state is saved: "
                        f"continue with `resume` and `out` {self.folder.path}"
                    )
                if self.is_finished:
                    return
        except TrainingError as error:
            if plan.keep == "last":
                raise
            self.best_state.alarms.append(str(error))
            self._save()

    def network(self) -> Network:
        """The adapted network as it is now, in eval mode."""
        weights = self.trainer.source.final_weights() | self.trainer.norm_stats()
        return self.context.placed(lambda images: run_backbone(self.backbone.model, images, weights))

    def features(self, num_images: int) -> Tensor:
        """(N, F) of the first training images, under the network as it is now."""
        return self.context.features(self.network(), self.split.training[:num_images])

    def first_alarms(self, *, is_vouched_for: bool = False) -> list[str]:
        """What speaks against the images before the first step; with labels, what there is to learn is known.

        Args:
            is_vouched_for: whether a run like this has been judged, so that its kind of images is in no doubt.
        """
        num_images = min(500, len(self.health.images.paths))
        alarms: list[str] = []
        if not objective_of(self.plan).needs_labels:
            self.execution.tell("is there structure to learn from?")
            own = torch.cat(self.health.base_features)[self.team.rank :: self.team.size][:num_images]
            start = self.context.network_at_start()
            alarms = learnability_alarms(start, self.health.images.batches(num_images), own)
        if not alarms and self.context.val is None and self.plan.num_holdout == 0:
            return [
                f"too few: {num_images} images leave none to judge by; add images, lower `batch_size`, give `val`, "
                "or take the last state unjudged with `keep` last"
            ]
        if not alarms and self.context.val is None and objective_of(self.plan).learns_relations:
            self.execution.tell(f"do {' and '.join(self.plan.teachers)} know more than the last layer?")
            alarms = teacher_alarms(self.context, self.split.training[:NUM_CERTIFYING])
            alarms = alarms or ([] if is_vouched_for else self._doubts())
        return alarms

    def _doubts(self) -> list[str]:
        """What speaks against a lesson that only the network itself vouches for: small images, or familiar ones."""
        if self.plan.witness or any(parse_teacher(text).kind == "model" for text in self.plan.teachers):
            return []
        size = self.plan.views.global_size
        if alarms := enlargement_alarms(usual_short_side(self.split.training), size):
            return alarms
        names = [f"{self.backbone.classifier_name}.{part}" for part in ("weight", "bias")]
        if not all(name in self.backbone.classifier for name in names):
            return []
        return familiarity_alarms(self.health.base_features[1], *(self.backbone.classifier[name] for name in names))

    def _evaluate(self, step: int) -> None:
        classifier = self.trainer.objective.classifier()
        judgement = self.judge.judge(Candidate(self.network(), classifier))
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
        self.folder.save_state({"trainer": self.trainer.state(), BEST_STATE: self.best_state.state()})
