"""What teaches a run at native size: the frozen network's own stages, its last layer, other models.

Every teacher embeds every image once: the backbone itself at the plan's teacher size, another model at its own size and
with its own preparation; a later run over the same images finds that in the cache. Its features are partly whitened on
the training images; several teachers stand side by side, each of unit length.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from smn_cli.adapters.fingerprint import fingerprint
from smn_cli.backbones.folding import fold
from smn_cli.backbones.loading import Backbone, check_arch, check_sizes, load_backbone
from smn_cli.config.teachers import STAGES, TeacherName, parse_teacher
from smn_cli.data.preprocessing import Preprocessing
from smn_cli.data.views.crop_cache import CropCache
from smn_cli.errors import BackboneError
from smn_cli.evaluation.readouts import Readout, fit_readout, fit_stage_readout
from smn_cli.features.cache_key import feature_key
from smn_cli.features.embed import Embedding, batch_size_for, beside_stages, shared_features
from smn_cli.features.row_store import fill, pieces, room_for_rows
from smn_cli.judging.looks import Activations
from smn_cli.recipes import Precision
from smn_cli.training.run_context import Execution, RunContext, preprocessing_of


@dataclass(frozen=True)
class Teacher:
    """One teacher, ready to look at images.

    Attributes:
        name: as it was asked for.
        network: prepared images (B, 3, H, W) that lie anywhere, to features (B, D).
        preprocessing: of its images.
        facts: for the provenance.
        device, precision: where it runs, and in which format.
        crops: of the run, for a teacher that looks at images of the working size.
        num_last: how many numbers of a row come before its own: the last layer's, of whose pass the stages are a part.
    """

    name: TeacherName
    network: Callable[[Tensor], Tensor]
    preprocessing: Preprocessing
    facts: dict[str, Any]
    device: torch.device
    precision: Precision
    crops: CropCache
    num_last: int = 0

    def embed(
        self,
        images: list[Path],
        execution: Execution,
        progress: Callable[[int], None] | None = None,
        room: Callable[[int, int], Tensor] = torch.empty,
    ) -> Tensor:
        """(N, num_last + D) on the CPU; from the cache, where the same teacher saw the same images before.

        No rows in other processes of a team than the first.

        Args:
            images: N of them.
            execution: its processes share them.
            progress: called with the number of images done.
            room: where rows that are not in the cache are put, see `shared_features`.
        """
        return shared_features(
            self.network,
            images,
            self.embedding(execution),
            batch_size=self.batch_size,
            key=lambda: self._key(images),
            progress=progress,
            room=room,
        )

    def _key(self, images: list[Path]) -> str | None:
        network = {"digest": str(self.facts["digest"]), "arch": str(self.facts["arch"])}
        how = {
            "preprocessing": self.preprocessing.to_json(),
            "precision": self.precision,
            "batch": self.batch_size,
            "teacher": self.name.kind,
            "folded": True,
        }
        return feature_key(images, network=network, how=how, device=self.device)

    def embedding(self, execution: Execution) -> Embedding:
        """How it looks at images."""
        how = (self.preprocessing, self.precision, execution.num_workers, execution.cache, execution.team)
        return Embedding(*how, crops=self.crops)

    @property
    def batch_size(self) -> int:
        """Images a batch."""
        return batch_size_for(self.device, self.preprocessing.size)

    def is_base_at(self, preprocessing: Preprocessing) -> bool:
        """Whether it is the run's own backbone, and looks at images so prepared."""
        return self.name.kind != "model" and self.preprocessing == preprocessing

    def own(self, rows: Tensor) -> Tensor:
        """(N, num_last + D) as it was embedded to (N, D), what it teaches with."""
        return rows[:, self.num_last :]

    def fit(self, features: Tensor) -> Readout:
        """From its own features (N, D) to its space, fitted to those of the training images."""
        return fit_stage_readout(features) if self.name.kind == STAGES else fit_readout(features, "whitened")

    def read(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """Features (N, D) of two views to the teacher's space, fitted to both."""
        readout = self.fit(torch.cat([first, second]))
        return readout(first), readout(second)


def open_teacher(name: TeacherName, context: RunContext) -> Teacher:
    """Load a teacher, or take the run's own backbone for one.

    Raises:
        BackboneError, FileError: a second model cannot be had, or the backbone has no stages.
    """
    where = context.device, context.plan.precision, context.crops
    if name.kind == "model":
        other = _second_model(name)
        size = name.size or other.native_size
        network = context.placed(fold(other.model.to(context.device), size).network)
        return Teacher(name, network, preprocessing_of(other, size), _facts(name, other, size), *where)

    size = context.plan.teacher_size
    model = context.folded.network
    network = context.placed(beside_stages(model) if name.kind == STAGES else model)
    num_last = context.backbone.num_features if name.kind == STAGES else 0
    preprocessing = replace(context.preprocessing, size=size)
    return Teacher(name, network, preprocessing, _facts(name, context.backbone, size), *where, num_last)


def _facts(name: TeacherName, backbone: Backbone, size: int) -> dict[str, Any]:
    return {
        "name": name.shown,
        "arch": backbone.arch,
        "tag": backbone.tag,
        "size": size,
        "digest": fingerprint(backbone.model.state_dict()).digest,
        "licence": backbone.licence,
    }


def check_teachers(texts: tuple[str, ...]) -> None:
    """Refuse teachers that cannot be had, before anything is looked at.

    Raises:
        UsageError, BackboneError: not a teacher's name, no model of timm's, or its file is missing.
    """
    for name in map(parse_teacher, texts):
        if name.kind == "model":
            try:
                check_arch(name.arch)
            except BackboneError as error:
                raise BackboneError(f"`teacher` {name.text}: {error}") from None
        if name.weights and not Path(name.weights).is_file():
            raise BackboneError(f"`teacher` {name.text}: there is no file {name.weights}")


def _second_model(name: TeacherName) -> Backbone:
    """The other model that a teacher's name stands for, once it is known to take images of its size."""
    try:
        other = load_backbone(name.arch, name.weights or None)
        check_sizes(other, [name.size or other.native_size])
    except BackboneError as error:
        raise BackboneError(f"`teacher` {name.text}: {error} (a teacher is NAME[@SIZE][=FILE])") from None
    return other


def joined_space(spaces: list[Tensor]) -> Tensor:
    """Unit-length spaces (N, d) side by side, again of unit length: similarities are their mean."""
    return functional.normalize(torch.cat(spaces, dim=1), dim=1)


class TaughtSpace(NamedTuple):
    """What the teachers say of the held-out images, then of the training images; the tensors in the first process.

    Attributes:
        space: (H + N, d) float16 of unit length; of very many images in a mapped file.
        facts: who the teachers are, for the provenance.
        base_features: (N, F) float32, of very many float16 in a mapped file, of the base for the training images at the
            working size; None if no teacher is the backbone itself on images of that size.
        trunk: what the run's frozen trunk gave for the images that judge, while such a teacher looked at them.
    """

    space: Tensor
    facts: list[dict[str, Any]]
    base_features: Tensor | None
    trunk: Activations | None = None


def teacher_space(context: RunContext) -> TaughtSpace:
    """Let every teacher look at every image; each process embeds a share."""
    split, execution = context.split, context.execution
    team, paths = execution.team, [*split.held_out, *split.training]
    spaces, facts, base_features = [], [], None
    folder, trunk = context.folder.path, Activations(len(split.held_out) + len(split.searched))
    names = [parse_teacher(text) for text in context.plan.teachers]
    for number, name in enumerate(names):
        teacher = open_teacher(name, context)
        tick = None
        if execution.on_teacher_embedding is not None and team.is_first:
            tick = _ticker(execution.on_teacher_embedding, number * len(paths), len(names) * len(paths))
        with _noted(context, trunk) if teacher.is_base_at(context.preprocessing) else nullcontext():
            rows = teacher.embed(paths, execution, tick, partial(room_for_rows, folder=folder))
        facts.append(teacher.facts)
        if team.is_first:
            training = rows[len(split.held_out) :]
            spaces.append(_read_out(teacher.fit(teacher.own(training)), teacher.own(rows), folder))
            if teacher.is_base_at(context.preprocessing):
                base_features = training[:, : teacher.num_last] if teacher.num_last else training
                if base_features.dtype == torch.float32:  # a copy, for a part would keep the whole alive
                    base_features = base_features.clone()
    return TaughtSpace(_joined_rows(spaces, folder) if spaces else torch.empty(0), facts, base_features, trunk)


@contextmanager
def _noted(context: RunContext, trunk: Activations) -> Iterator[None]:
    """Inside, what the folded base computes before the run's first trained block is noted, if this process sees all."""
    cut = context.cut
    if cut is None or cut.model is not context.folded.network or context.execution.team.size > 1:
        yield
        return
    block = cut.model.get_submodule(cut.block)
    handle = block.register_forward_pre_hook(lambda _block, inputs: trunk.note(inputs[0]))
    try:
        yield
    finally:
        handle.remove()


def _read_out(readout: Readout, rows: Tensor, folder: Path) -> Tensor:
    """(N, d) of a readout, a piece of rows after another."""
    space = torch.empty(0)
    for part in pieces(len(rows)):
        read = readout(rows[part].float())
        if part.start == 0:
            space = room_for_rows(len(rows), read.shape[1], folder)
        fill(space, part.start, read)
    return space


def _joined_rows(spaces: list[Tensor], folder: Path) -> Tensor:
    """(N, d) float16, spaces joined a piece of rows after another."""
    joined = room_for_rows(len(spaces[0]), sum(space.shape[1] for space in spaces), folder, half=True)
    for part in pieces(len(joined)):
        fill(joined, part.start, joined_space([space[part].float() for space in spaces]))
    return joined


def witness_features(context: RunContext) -> Tensor | None:
    """(H + M, F) float16 of the plan's witness, of the held-out images and those that they are compared with."""
    if not context.plan.witness:
        return None
    paths = [*context.split.held_out, *context.split.searched]
    witness = open_teacher(parse_teacher(context.plan.witness), context)
    return witness.embed(paths, context.execution).half()


def _ticker(tell: Callable[[int, int], None], before: int, total: int) -> Callable[[int], None]:
    return lambda done: tell(before + done, total)
