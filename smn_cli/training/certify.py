"""Whether a run's teachers know its images better than the base's own last layer, asked before the first step."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from smn_cli.config.teachers import LAST, STAGES, TeacherName, parse_teacher
from smn_cli.evaluation.intervals import Gain, paired_difference
from smn_cli.evaluation.view_consistency import corner_crops, view_consistency
from smn_cli.features.embed import beside_stages
from smn_cli.training.run_context import RunContext
from smn_cli.training.teachers import Teacher, joined_space, open_teacher

NUM_CERTIFYING = 500
"""Training images whose views tell whether a teacher is worth learning from."""
NUM_AT_ONCE = 200
"""So many tell enough if they leave no doubt. Fewer speak for the last layer, so that only a yes comes early."""


@torch.inference_mode()
def teacher_alarms(context: RunContext, images: list[Path]) -> list[str]:
    """What speaks against the teachers before the first step: that the base's own last layer knows these images better.

    Both spaces are partly whitened, fitted to the views themselves; see `smn_cli.evaluation.view_consistency`. The
    first two hundred images decide if the gain's interval lies as far above zero as it reaches below the gain.

    Args:
        context: of a run whose teachers are layers of its own backbone.
        images: a sample of at least a hundred, better five hundred.
    """
    names = [parse_teacher(text) for text in context.plan.teachers]
    if [name.kind for name in names] == [LAST]:
        return []
    own, taught = _readers(context, names)
    base, teacher, gain = torch.empty(0), torch.empty(0), Gain(0.0, 0.0, 0.0)
    for part in filter(None, (images[:NUM_AT_ONCE], images[NUM_AT_ONCE:])):
        own.eye.look_at(part)
        views = [reader.read() for reader in taught]
        first, second = (joined_space([view[side] for view in views]) for side in (0, 1))
        base, teacher = view_consistency(*own.read()), view_consistency(first, second)
        gain = paired_difference(base, teacher)
        if gain.low > gain.value - gain.low:
            break
    if gain.low > 0:
        return []
    who = " and ".join(name.shown for name in names)
    seen = (
        f"two views of an image find the same neighbours in {float(teacher.mean()):.3f} of the cases to {who}, in "
        f"{float(base.mean()):.3f} to the last layer ({gain.low:+.3f} to {gain.high:+.3f}, {len(images)} images)"
    )
    if gain.high >= 0:
        return [
            f"no better teacher: {seen}, which does not tell who knows more; add images, give another `teacher`, or "
            "with `keep` last learn from this one"
        ]
    return [
        f"no better teacher: {seen}; the images look like those that the backbone was trained on: use it as it is, "
        "give another `teacher`, or with `keep` last learn from this one"
    ]


@dataclass
class _Eye:
    """Both corner crops of images as one network sees them; further images join those that it has seen."""

    network: Callable[[Tensor], Tensor]
    batches: Callable[[list[Path]], Iterator[Tensor]]
    seen: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def look_at(self, images: list[Path]) -> None:
        for batch in self.batches(images):
            first, second = (self.network(crop).float().cpu() for crop in corner_crops(batch))
            self.seen.append((first, second))


@dataclass(frozen=True)
class _Reader:
    """A teacher, and where its numbers stand in the rows of an eye."""

    teacher: Teacher
    eye: _Eye
    part: slice

    def read(self) -> tuple[Tensor, Tensor]:
        """(N, d) of both views of all images seen, in the teacher's space."""
        first, second = (torch.cat([pair[side] for pair in self.eye.seen])[:, self.part] for side in (0, 1))
        return self.teacher.read(first, second)


def _readers(context: RunContext, names: list[TeacherName]) -> tuple[_Reader, list[_Reader]]:
    """That of the last layer, and those of the teachers, all the backbone's own, which share one pass."""
    last = open_teacher(TeacherName(LAST), context)
    width = context.backbone.num_features
    network = last.network
    if any(name.kind == STAGES for name in names):
        network = context.placed(beside_stages(context.folded.network))
    eye = _Eye(network, partial(last.embedding(context.execution).batches, batch_size=last.batch_size))
    own = {
        LAST: _Reader(last, eye, slice(None, width)),
        STAGES: _Reader(replace(last, name=TeacherName(STAGES)), eye, slice(width, None)),
    }
    return own[LAST], [own[name.kind] for name in names]
