"""A cascade in the making, on disk as it goes: images to clusters, an expert a cluster, then one file.

Every part is complete or not there, and follows from those before it, so that a cascade that was stopped anywhere goes
on to the same file.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from smn_cli.adapters.adapter import Adapter, load_adapter
from smn_cli.backbones.loading import Backbone, to_device
from smn_cli.cascade.blocks import expert_blocks, features_under
from smn_cli.cascade.cascade import Cascade, make_cascade
from smn_cli.cascade.combining import Combination, fit_combination, plain_combination
from smn_cli.cascade.expert_plan import make_expert_plan, min_images
from smn_cli.cascade.file import save_cascade
from smn_cli.cascade.options import CascadeOptions
from smn_cli.cascade.router import Router, fit_router
from smn_cli.config.plan import AdaptPlan
from smn_cli.data.images.validate import ImageSet
from smn_cli.errors import CheckpointError, UsageError
from smn_cli.features.cache import FeatureCache
from smn_cli.features.embed import Embedding
from smn_cli.holding import clear_orphans
from smn_cli.objectives.table import objective_of
from smn_cli.recipes import RECIPES
from smn_cli.runs.run_config import check_run_base, plan_of, preprocessing_in, restore_threads, versions
from smn_cli.runs.run_folder import CASCADE_FILE, CASCADE_SCHEMA, RunFolder, is_run
from smn_cli.runs.run_result import read_learned
from smn_cli.schemas.runs import ExpertJson
from smn_cli.training.run_context import Execution, RunRequest
from smn_cli.training.session import Session
from smn_cli.training.start_state import StartState, read_start_state

START_STATE_FILE, ROUTER_FILE, DISPATCHER_FILE = "beginning.safetensors", "router.safetensors", "dispatcher.safetensors"
Pack = Callable[[RunFolder, Backbone], Adapter]
Progress = Callable[[int], None]
_ROUTES = "routes"


class CascadeFolder(RunFolder):
    """A run folder whose run is a cascade; experts are run folders within."""

    schema, maker = CASCADE_SCHEMA, "smn cascade"
    required = frozenset(
        {"run", "arch", "weights", "base_digest", "plan", "preprocessing", "cascade", "threads", "device"}
    )

    def expert(self, number: int) -> Path:
        """Where an expert's run is, or will be."""
        return self.path / f"expert-{number}"


@dataclass(frozen=True)
class ExpertRecord:
    """What became of an expert; one that keeps the dispatcher's mask has kept step 0.

    `num_images` is the size of its cluster, `num_steps` the steps it took, `judge_gain` what its judge put it above the
    dispatcher, None if it did not.
    """

    num_images: int
    num_steps: int
    kept_step: int
    judge_gain: float | None

    def to_json(self) -> ExpertJson:
        """Plain dictionary."""
        return {
            "num_images": self.num_images,
            "num_steps": self.num_steps,
            "kept_step": self.kept_step,
            "judge_gain": self.judge_gain,
        }


class CascadeRun:
    """Folder, base, dispatcher and images of a cascade. Get one from `start` or `resume`."""

    def __init__(self, folder: CascadeFolder, backbone: Backbone, execution: Execution) -> None:
        config = folder.read_config()
        check_run_base(config, backbone)
        to_device(backbone, execution.device)
        self.folder = folder
        self.backbone = backbone
        self.execution = execution
        try:
            self.options = CascadeOptions(**config["cascade"])
        except TypeError as error:
            raise CheckpointError(f"the settings in {folder.path} are of another version: {error}") from None
        plan = plan_of(config, folder)
        lr_scores = self.options.lr_scores
        if lr_scores is None:
            lr_scores = plan.lr_scores * RECIPES[plan.recipe].expert_lr_share
        self.plan: AdaptPlan = replace(plan, keep=self.options.keep or plan.keep, lr_scores=lr_scores)
        self.images = folder.read_images()
        self.dispatcher = load_adapter(folder.path / DISPATCHER_FILE)
        self.embedding = Embedding(preprocessing_in(config, folder), "fp32", execution.num_workers, FeatureCache())

    @classmethod
    def start(
        cls,
        folder_path: Path,
        run: RunFolder,
        backbone: Backbone,
        dispatcher: Adapter,
        options: CascadeOptions,
        *,
        images: list[Path] | None = None,
        overwrite: bool = False,
        execution: Execution | None = None,
    ) -> "CascadeRun":
        """Make the folder, with all that later parts need of the dispatcher's run.

        Args:
            folder_path: becomes the cascade's folder.
            run: of the dispatcher.
            backbone: its base; put on the device.
            dispatcher: what `run` was packed to.
            options: settings asked for.
            images: to be clustered and trained on; None for those of the run.
            overwrite: whether a cascade there may be replaced.
            execution: device, workers, how often to save.

        Raises:
            UsageError: the folder or the settings do not do, or the run did not learn a mask without labels.
            CheckpointError, MismatchError: the run is damaged, or the base another one.
        """
        execution = execution or Execution()
        # refused now, not when all experts are trained
        plain_combination(
            options.experts + 1,
            backbone.num_features,
            mode=options.mode,
            kind=options.combine,
            dim=options.dim,
            seed=options.seed,
        )
        config = run.read_config()
        plan = plan_of(config, run)
        if not (plan.mode.has_mask and plan.mode.moves) or objective_of(plan).needs_labels:
            raise UsageError(f"`run` {run.path} did not learn a mask without labels: experts cannot go on from it")
        check_run_base(config, backbone)
        with CascadeFolder.create(folder_path, overwrite=overwrite) as made:
            folder = CascadeFolder(made.path)
            folder.write_images(run.read_images() if images is None else images, [])
            folder.save_tensors(START_STATE_FILE, read_start_state(run, backbone).tensors())
            dispatcher.save(folder.path / DISPATCHER_FILE)
            shared = ("arch", "tag", "weights", "base_digest", "plan", "preprocessing")
            own: dict[str, Any] = {
                "run": str(run.path.absolute()),
                "cascade": options.to_json(),
                "device": execution.device,
            }
            own |= {"threads": torch.get_num_threads(), "versions": versions()}
            folder.write_config({**{name: config.get(name) for name in shared}, **own})
        return cls(CascadeFolder(folder_path), backbone, execution)

    @classmethod
    def resume(cls, folder_path: Path, backbone: Backbone, *, execution: Execution | None = None) -> "CascadeRun":
        """Go on with a cascade.

        Raises:
            CheckpointError: the folder is no cascade's, or damaged.
            MismatchError: the backbone is not the one it was started with.
        """
        clear_orphans(folder_path.absolute())  # of makings that were killed, beside the folder
        folder = CascadeFolder(CascadeFolder.open(folder_path).path)
        restore_threads(folder.read_config(), folder)
        return cls(folder, backbone, execution or Execution())

    def features(self, progress: Progress | None = None) -> Tensor:
        """(N, F) of the images under the dispatcher."""
        return features_under(self.dispatcher, self.backbone, self.images, self.embedding, progress=progress)

    def cluster(self, progress: Progress | None = None) -> list[int]:
        """Fit the router, unless that was done before; sizes of the clusters.

        Raises:
            DataError: the images do not make so many clusters.
        """
        if not self.folder.has_tensors(ROUTER_FILE):
            features, options = self.features(progress), self.options
            router = fit_router(features, options.experts, kind=options.cluster, seed=options.seed)
            self.folder.save_tensors(ROUTER_FILE, {**router.tensors, _ROUTES: router.route(features)})
        return torch.bincount(self.routes, minlength=self.options.experts).tolist()

    @cached_property
    def routes(self) -> Tensor:
        """(N,) int64: the cluster of each image; call `cluster` first."""
        return self.folder.load_tensors(ROUTER_FILE)[_ROUTES]

    @property
    def router(self) -> Router:
        """Call `cluster` first."""
        tensors = self.folder.load_tensors(ROUTER_FILE)
        return Router(self.options.cluster, {name: tensors[name] for name in tensors if name != _ROUTES})

    def session(self, number: int) -> Session | None:
        """The run of an expert, begun now or before; None where its cluster is too small for one."""
        images = [self.images[row] for row in (self.routes == number).nonzero()[:, 0].tolist()]
        if len(images) < min_images(self.plan):
            return None
        path = self.folder.expert(number)
        if is_run(path):
            return Session.resume(path, self.backbone, execution=self.execution)
        start_state = StartState.of_tensors(self.folder.load_tensors(START_STATE_FILE))
        plan = make_expert_plan(
            self.plan,
            len(images),
            num_steps=self.options.steps,
            seed=self.options.seed,
            has_head=bool(start_state.head),
        )
        weights = str(self.folder.read_config()["weights"])
        request = RunRequest(path, ImageSet(images), weights=weights, plan=plan)
        return Session.start(request, self.backbone, execution=self.execution, start=start_state)

    def records(self) -> list[ExpertRecord]:
        """What became of the experts, in order; one that was not trained is the dispatcher."""
        sizes, records = self.cluster(), []
        for number, num_images in enumerate(sizes):
            path = self.folder.expert(number)
            if is_run(path):
                learned = read_learned(RunFolder.open(path))
                state = RunFolder.open(path).load_state()
                records.append(
                    ExpertRecord(num_images, int(state["trainer"]["step"]), learned.step, learned.judge_gain)
                )
            else:
                records.append(ExpertRecord(num_images, 0, 0, None))
        return records

    def adapters(self, pack: Pack) -> list[Adapter]:
        """The experts, in order; the dispatcher where there is none.

        Args:
            pack: makes an adapter of a run folder.
        """
        paths = [self.folder.expert(number) for number in range(self.options.experts)]
        return [pack(RunFolder.open(path), self.backbone) if is_run(path) else self.dispatcher for path in paths]

    def finish(self, experts: list[Adapter], progress: Progress | None = None) -> Cascade:
        """Fit the combination on the training images and write the cascade's file.

        Args:
            experts: see `adapters`.
            progress: called with the number of images embedded.
        """
        combination = self._combination(experts, progress)
        provenance = {
            "images": len(self.images),
            "settings": self.options.to_json(),
            "experts": [record.to_json() for record in self.records()],
            "versions": self.folder.read_config().get("versions", {}),
        }
        base = self.backbone.model.state_dict()
        cascade = make_cascade(
            base, self.dispatcher, experts, router=self.router, combination=combination, provenance=provenance
        )
        save_cascade(self.file, cascade)
        return cascade

    @property
    def file(self) -> Path:
        """Of the finished cascade."""
        return self.folder.path / CASCADE_FILE

    def _combination(self, experts: list[Adapter], progress: Progress | None) -> Combination:
        options = self.options
        routes = self.routes if options.mode == "conditional" else None
        blocks = expert_blocks(
            self.dispatcher,
            experts,
            self.features(),
            self.backbone,
            self.images,
            self.embedding,
            routes=routes,
            progress=progress,
        )
        return fit_combination(blocks, routes, kind=options.combine, dim=options.dim, seed=options.seed)
