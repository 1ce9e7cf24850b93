"""What travels together through a run: what it was asked for, how it goes about its work, what it works on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from smn_cli.backbones.folding import Folded, fold, unfolded
from smn_cli.backbones.loading import Backbone
from smn_cli.backbones.trunk import CutNetwork
from smn_cli.config.options import AdaptOptions
from smn_cli.config.plan import AdaptPlan
from smn_cli.data.images.validate import ImageSet
from smn_cli.data.labels.eval_split import LabeledSplit
from smn_cli.data.labels.labeled_images import LabeledImages
from smn_cli.data.preprocessing import Preprocessing
from smn_cli.data.views.crop_cache import CropCache
from smn_cli.distributed import Team
from smn_cli.errors import BackboneError
from smn_cli.evaluation.classifier import LinearClassifier
from smn_cli.evaluation.features import Network, extract_features, on_device
from smn_cli.features.cache import FeatureCache
from smn_cli.features.embed import batch_size_for
from smn_cli.judging.judges import Judgement
from smn_cli.judging.looks import Candidate
from smn_cli.masking.backbone import run_backbone
from smn_cli.masking.binarize import effective_weight
from smn_cli.runs.run_folder import RunFolder
from smn_cli.runs.run_result import Origin
from smn_cli.training.image_split import ImageSplit
from smn_cli.training.mask_setup import names_to_train
from smn_cli.training.trunk_plan import LEAST_SHARE, cut_of_plan


@dataclass(frozen=True)
class RunRequest:
    """What a new run is asked for.

    Attributes:
        out: becomes the run folder.
        images: checked images; settings follow from all that may be usable, also of those not looked at.
        options: settings asked for.
        weights: the weights file, remembered for later commands; empty for hub weights.
        overwrite: whether an existing run there may be replaced.
        val: labeled images that judge instead of the held-out ones.
        labeled: classes of the images, for a run with labels.
        plan: instead of the one that follows from options and images.
    """

    out: Path
    images: ImageSet
    options: AdaptOptions = field(default_factory=AdaptOptions)
    weights: str = ""
    overwrite: bool = False
    val: LabeledSplit | None = None
    labeled: LabeledImages | None = None
    plan: AdaptPlan | None = None


@dataclass(frozen=True)
class Execution:
    """How a run goes about its work; but for the device and rounding between processes, none of it changes the result.

    Attributes:
        device, num_workers: where to train, and how many processes load images.
        save_every_s: seconds between checkpoints.
        on_teacher_embedding: called with (images embedded, images in all) before the first step.
        on_phase: called with a few words at the start of whatever takes its time before the first step.
        on_judgement: called with (step, judgement) after every evaluation.
        on_trunk: called with (batches, batches in all) while the frozen first blocks look at the views that are kept.
        team: the processes that share the run.
        cache: where teachers' features are looked for and kept; None embeds the images in every run.
        logs: names of logs that the first process writes besides metrics.jsonl, see `smn_cli.training.run_logs`.
    """

    device: str = "cpu"
    num_workers: int = 0
    save_every_s: float = 60.0
    on_teacher_embedding: Callable[[int, int], None] | None = None
    on_judgement: Callable[[int, Judgement], None] | None = None
    on_phase: Callable[[str], None] | None = None
    on_trunk: Callable[[int, int], None] | None = None
    team: Team = field(default_factory=Team)
    cache: FeatureCache | None = None
    logs: tuple[str, ...] = ()

    def tell(self, words: str) -> None:
        """Say what begins, to whoever listens."""
        if self.on_phase is not None:
            self.on_phase(words)


@dataclass(frozen=True)
class RunContext:
    """What a run works on, from its start to its end.

    Attributes:
        folder: on disk.
        backbone: the base, on its device.
        plan: all settings.
        split: the images.
        execution: device, workers, team.
        val: labeled images that judge, if any were given.
    """

    folder: RunFolder
    backbone: Backbone
    plan: AdaptPlan
    split: ImageSplit
    execution: Execution
    val: LabeledSplit | None = None

    @cached_property
    def preprocessing(self) -> Preprocessing:
        """Of the working size."""
        return preprocessing_of(self.backbone, self.plan.views.global_size)

    @cached_property
    def crops(self) -> CropCache:
        """Images at the working size; of those that judge, files are read once for all who look at them."""
        return self.crops_of([*self.split.held_out, *self.split.searched])

    def crops_of(self, paths: Sequence[Path]) -> CropCache:
        """The same of other images that are looked at more than once."""
        return CropCache(paths, self.preprocessing, batch_size_for(self.device, self.preprocessing.size))

    @property
    def device(self) -> torch.device:
        """Where the backbone is."""
        return next(self.backbone.model.parameters()).device

    def placed(self, network: Network) -> Network:
        """A network on the backbone's device for images that lie anywhere, in the precision of the run."""
        return on_device(network, self.device, self.plan.precision)

    def base(self) -> Network:
        """The frozen network, for images that lie anywhere."""
        return self.placed(self.backbone.model)

    @property
    def starts_at_base(self) -> bool:
        """Whether the run starts from the base itself."""
        return self._origin is None

    def network_at_start(self) -> Network:
        """The network that the run started from: its base, if its folder does not say otherwise."""
        return self.network(self._weights_at_start)

    def network(self, weights: dict[str, Tensor]) -> Network:
        """The backbone under effective weights by first names, for images that lie anywhere."""
        model = self.backbone.model
        return self.placed(lambda images: run_backbone(model, images, weights) if weights else model(images))

    @cached_property
    def folded(self) -> Folded:
        """The base with its normalisations folded into its convolutions, for all who need no more than its features."""
        return fold(self.backbone.model, self.preprocessing.size)

    @cached_property
    def worked(self) -> Folded:
        """What steps and judges work with under weights of the run: the folded base, where it takes them all."""
        model = self.backbone.model
        names = {*names_to_train(model, self.plan), *self._weights_at_start}
        return self.folded if self.plan.norm_stats != "adapt" and self.folded.takes(names) else unfolded(model)

    @cached_property
    def cut(self) -> CutNetwork | None:
        """That network, cut before its first trained block, if all networks of the run share enough of it."""
        plan = self.plan
        if plan.norm_stats == "adapt" or plan.grad_checkpoint or not plan.mode.moves or not self.starts_at_base:
            return None  # checkpointing runs blocks in parts, which cannot be cut
        try:
            cut = cut_of_plan(self.backbone, plan, self.worked.network)
        except BackboneError:
            return None
        return cut if cut.share >= LEAST_SHARE else None

    @property
    def trunk(self) -> Network | None:
        """What all networks of the run share, from images that lie anywhere to activations; None if there is no cut."""
        return None if self.cut is None else self.placed(self.cut.trunk)

    def candidate(self, weights: dict[str, Tensor], classifier: LinearClassifier | None = None) -> Candidate:
        """The network under effective weights by first names, for a judge; equal to `network` to float rounding."""
        worked, cut = self.worked, self.cut
        own = worked.carried(weights)
        late = None if cut is None else self.placed(lambda activations: cut.late(activations, own))
        return Candidate(self.placed(lambda images: run_backbone(worked.network, images, own)), classifier, late)

    def candidate_at_start(self) -> Candidate:
        """The network that the run started from, for a judge."""
        return self.candidate(self._weights_at_start)

    def features(self, network: Network, images: list[Path]) -> Tensor:
        """(N, F) float32 on the CPU, of images at the working size."""
        batches = self.crops.batches(images, num_workers=self.execution.num_workers)
        return extract_features(network, batches, num_images=len(images))

    @cached_property
    def _weights_at_start(self) -> dict[str, Tensor]:
        origin = self._origin
        if origin is None:
            return {}
        own, device = self.backbone.model.state_dict(), self.device
        weights = {name: effective_weight(own[name], mask.to(device)) for name, mask in origin.masks.items()}
        return weights | {name: tensor.to(device) for name, tensor in origin.norm_stats.items()}

    @cached_property
    def _origin(self) -> Origin | None:
        return Origin.read(self.folder)


def preprocessing_of(backbone: Backbone, size: int) -> Preprocessing:
    """How images reach this backbone at a given size."""
    return Preprocessing(size, backbone.mean, backbone.std, backbone.interpolation)
