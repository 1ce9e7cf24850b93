"""What else the lesson of neighbourhoods could be, beside the default; and the stages as a mask leaves them.

    python benchmarks/lesson.py --data FOLDER --sets tomato flowers17 --arms default momentum instance affine

A run is `smn adapt --keep last` at native size with one thing changed (ARMS). Base and network at the last step are
scored as in `native.py`, and by the partly whitened stages of each: the base's need no training, the adapted ones are
what `smn pack --readout stages` reads under the mask. One line of benchmarks/results/lesson.jsonl a run.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from judge import JITTER, PROTOCOL, beside
from torch import Tensor, nn
from torch.nn import functional

from smn_cli.backbones.folding import unfolded
from smn_cli.backbones.loading import load_backbone
from smn_cli.backbones.packaged import LITE0_ARCH, lite0_weights
from smn_cli.config.options import AdaptOptions
from smn_cli.data.images.validate import check_images
from smn_cli.data.labels.eval_split import LabeledSplit, load_labeled_split
from smn_cli.evaluation.compare import LabeledFeatures, Scores, score
from smn_cli.evaluation.controls import readout_scores
from smn_cli.features.embed import Embedding, labeled_features
from smn_cli.masking.backbone import density, normalisation_layers, parameters_replaced
from smn_cli.objectives import neighbourhood
from smn_cli.objectives.neighbourhood import NeighbourhoodObjective
from smn_cli.recipes import RECIPES
from smn_cli.runs.run_config import versions
from smn_cli.training.run_context import Execution, RunRequest
from smn_cli.training.session import Session
from smn_cli.training.trainer import StepReport, Trainer

RESULTS = Path(__file__).parent / "results" / "lesson.jsonl"
KEPT_MEMORY, OWN_SHARE, LR_AFFINE = 0.5, 0.2, 1e-3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", required=True)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=["default"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--steps", type=int)
    parser.add_argument("--size", type=int)
    parser.add_argument("--precision")
    parser.add_argument("--max-train", type=int, default=1000)
    parser.add_argument("--max-test", type=int, default=500)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    for name in options.sets:
        split = load_labeled_split(options.data / name, max_train=options.max_train, max_test=options.max_test)
        base: dict[str, Scores] = {}
        for arm, seed in ((arm, seed) for seed in options.seeds for arm in options.arms):
            row = {"data": name, "arm": arm, "seed": seed, **measure(split, arm, seed, base, options)}
            with options.results.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(name, arm, seed, row["seconds"], row["scores"]["raw k20"], row["scores"]["stages k20"], flush=True)


def measure(
    split: LabeledSplit, arm: str, seed: int, base: dict[str, Scores], options: argparse.Namespace
) -> dict[str, Any]:
    """One run, scored; the base's scores stay in `base`."""
    asked = AdaptOptions(
        seed=seed, keep="last", steps=options.steps, size=options.size, precision=options.precision, teacher=("stages",)
    )
    backbone = load_backbone(LITE0_ARCH, lite0_weights())
    with tempfile.TemporaryDirectory() as folder, ARMS[arm]():
        request = RunRequest(Path(folder) / "run", check_images(split.train_paths, max_bad=0), asked)
        session = Session.start(request, backbone, execution=Execution(device="cpu", save_every_s=3600))
        base.update(base or scores_of(backbone.model, split, session))
        started = time.monotonic()
        for _ in session.steps():
            pass
        seconds = time.monotonic() - started
    source = session.trainer.source
    with parameters_replaced(backbone.model, source.final_weights()):
        adapted = scores_of(backbone.model, split, session)
    return {
        "size": session.plan.views.global_size,
        "precision": session.plan.precision,
        "steps": session.plan.num_steps,
        "density": round(density(source.masks()), 4),
        "seconds": round(seconds, 1),
        "scores": beside(base, adapted),
        "base": {kind: each.metrics for kind, each in base.items()},
        "versions": versions(),
    }


def scores_of(model: nn.Module, split: LabeledSplit, session: Session) -> dict[str, Scores]:
    """By reading of the features, and of the stages, of the network as it stands."""
    embedding = Embedding(session.preprocessing)
    features: LabeledFeatures = labeled_features(model, split, embedding, identity=dict, with_stages=True)
    return {"raw": score(replace(features, stages=None), PROTOCOL), **readout_scores(features, PROTOCOL)}


@contextmanager
def with_momentum() -> Iterator[None]:
    """The memory moves half of the way to what a visit brings."""

    def after_backward(self: NeighbourhoodObjective, step: int) -> None:
        rows, embeddings = self._visited
        mixed = KEPT_MEMORY * self.memory[rows] + (1 - KEPT_MEMORY) * embeddings
        self.memory[rows] = functional.normalize(mixed, dim=1).to(self.memory.dtype)

    with patch.object(NeighbourhoodObjective, "after_backward", after_backward):
        yield


@contextmanager
def with_instance() -> Iterator[None]:
    """An image's own place in the memory is a positive, too, with a share; colours are jittered."""

    def loss(
        embeddings: Tensor, memory: Tensor, positions: Tensor, places: Tensor, shares: Tensor, *, temperature: float
    ) -> Tensor:
        log_predictions = functional.log_softmax(embeddings @ memory.T / temperature, dim=1)
        others = (shares[positions] * log_predictions.gather(1, places[positions].long())).sum(dim=1)
        own = log_predictions.gather(1, positions[:, None]).squeeze(1)
        return -(OWN_SHARE * own + (1 - OWN_SHARE) * others).mean()

    recipe = RECIPES["default"]
    jittered = replace(recipe, views=replace(recipe.views, **JITTER))
    with patch.dict(RECIPES, {"default": jittered}), patch.object(neighbourhood, "neighbourhood_loss", loss):
        yield


@contextmanager
def with_affine() -> Iterator[None]:
    """Scale and shift of the normalisations in masked blocks are trained beside the scores, by their own Adam."""
    plain, tuners = Trainer.take_step, dict[int, torch.optim.Optimizer]()

    def take_step(self: Trainer, batch: Any) -> StepReport:
        if id(self) not in tuners:
            self.network = unfolded(self.source.backbone)  # in which normalisations are layers of their own
            self._norm_layers = list(normalisation_layers(self.source.backbone).values())
            blocks = {".".join(name.split(".")[:2]) for name in self.source.trained}
            norms = [(n, m) for n, m in self.source.backbone.named_modules() if isinstance(m, nn.BatchNorm2d)]
            values = [p for name, m in norms if ".".join(name.split(".")[:2]) in blocks for p in m.parameters()]
            tuners[id(self)] = torch.optim.Adam([value.requires_grad_() for value in values], lr=LR_AFFINE)
        report = plain(self, batch)
        tuners[id(self)].step()
        tuners[id(self)].zero_grad()
        return report

    with patch.object(Trainer, "take_step", take_step):
        yield


ARMS: dict[str, Callable[[], Any]] = {
    "default": nullcontext,
    "momentum": with_momentum,
    "instance": with_instance,
    "affine": with_affine,
}


if __name__ == "__main__":
    main()
