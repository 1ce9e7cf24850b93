"""Small real runs of the paper's recipe on generated images, and what can be read from them."""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from smn_cli.backbones.loading import Backbone, load_backbone
from smn_cli.config.options import AdaptOptions
from smn_cli.data.images.validate import ImageSet
from smn_cli.objectives.swapped import SwappedObjective
from smn_cli.objectives.swav import ProjectionHead
from smn_cli.training.run_context import Execution, RunRequest
from smn_cli.training.session import Session

SMALL: dict[str, Any] = {
    "recipe": "paper",
    "size": 32,
    "batch_size": 8,
    "local_views": 1,
    "prototypes": 8,
    "queue": 16,
    "norm_stats": "frozen",
    "keep": "last",  # random weights never beat themselves, and alarms would end the run
}


class Workshop:
    """Starts runs over one weights file and one folder of images."""

    def __init__(self, weights: Path, arch: str, images: Path, runs: Path) -> None:
        self.weights = weights
        self.arch = arch
        self.images = ImageSet(good=sorted(images.iterdir()))
        self.runs = runs

    def backbone(self) -> Backbone:
        """The base, freshly loaded."""
        return load_backbone(self.arch, self.weights)

    def start(self, name: str, *, overwrite: bool = False, save_every_s: float = 60.0, **options: Any) -> Session:
        """A run of its own backbone; `options` change SMALL."""
        request = RunRequest(
            self.runs / name, self.images, AdaptOptions(**{**SMALL, **options}), str(self.weights), overwrite
        )
        return Session.start(request, self.backbone(), execution=Execution(save_every_s=save_every_s))

    def resume(self, name: str) -> Session:
        """The run of that name, continued."""
        return Session.resume(self.runs / name, self.backbone())

    def finish(self, name: str, **options: Any) -> Session:
        """A run taken to its end."""
        session = self.start(name, **options)
        for _ in session.steps():
            pass
        return session


def trained_of(session: Session) -> dict[str, torch.nn.Parameter]:
    """The scores themselves."""
    return session.trainer.source.trained


def scores_of(session: Session) -> dict[str, Tensor]:
    """Copies of the scores as they are now."""
    return {name: scores.detach().clone() for name, scores in trained_of(session).items()}


def masks_of(session: Session) -> dict[str, Tensor]:
    """The masks as they are now."""
    return session.trainer.source.masks()


def head_of(session: Session) -> ProjectionHead:
    """Projection and prototypes of a run with the swapped loss."""
    objective = session.trainer.objective
    assert isinstance(objective, SwappedObjective)
    return objective.head


def digests(model: torch.nn.Module) -> dict[str, str]:
    """SHA-256 of the bytes of every parameter and buffer."""
    return {k: hashlib.sha256(v.contiguous().numpy().tobytes()).hexdigest() for k, v in model.state_dict().items()}


def log_of(session: Session) -> list[dict[str, Any]]:
    """All lines of metrics.jsonl."""
    lines = (session.folder.path / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def metrics(session: Session) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl that report a step."""
    return [line for line in log_of(session) if "loss" in line]


def equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    """Whether two sets of tensors have the same names and the same bytes."""
    return first.keys() == second.keys() and all(
        first[name].numpy().tobytes() == second[name].numpy().tobytes() for name in first
    )
