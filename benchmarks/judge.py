"""What judges without labels say of many runs at native size, and what was true: false accepts and misses.

    python benchmarks/judge.py --data FOLDER --lite1 FILE --lite2 FILE --sets tomato flowers17 --arms stages both
    python benchmarks/judge.py --table [--looks 2 4 5]

A run is `smn adapt`'s, one of ARMS: the default, other teachers, other settings, and some that are made to do harm. No
alarm ends it before its first step, and at each of its judgements base and adapted network are scored with labels,
too. Its witness is Lite2, or Lite1 where Lite2 teaches. Sets hold train/ and test/ by class, of which at most
--max-train and --max-test images are used. One line of benchmarks/results/judge.jsonl a run.
"""

import argparse
import json
import multiprocessing
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from judge_rules import table

from smn_cli.backbones.loading import load_backbone
from smn_cli.backbones.packaged import LITE0_ARCH, lite0_weights
from smn_cli.config.options import AdaptOptions
from smn_cli.data.images.validate import check_images
from smn_cli.data.labels.eval_split import LabeledSplit, load_labeled_split
from smn_cli.data.views.crop_cache import CropCache
from smn_cli.evaluation.compare import LabeledFeatures, Scores, ScoringProtocol, compare, score
from smn_cli.evaluation.controls import readout_scores
from smn_cli.evaluation.features import Network, extract_features
from smn_cli.judging.judges import Judgement
from smn_cli.masking.backbone import density
from smn_cli.recipes import RECIPES, ViewPlan
from smn_cli.runs.run_config import versions
from smn_cli.training import setup
from smn_cli.training.run_context import Execution, RunRequest
from smn_cli.training.session import Session
from smn_cli.training.teachers import TaughtSpace, teacher_space

RESULTS = Path(__file__).parent / "results" / "judge.jsonl"
PROTOCOL = ScoringProtocol(knn=True, linear=True, ks=(20, 200))
_BASE: dict[tuple[str, int], dict[str, Scores]] = {}
"""Scores of the base by set and size: its probe takes longer than some runs."""
NAMES = {"knn.top1": "k20", "knn.top1@200": "k200", "linear.top1": "linear"}


@dataclass(frozen=True)
class Arm:
    """One way to train.

    Attributes:
        options: of `smn adapt`.
        teachers: the same, "lite1" and "lite2" standing for those models.
        views: what is otherwise in the recipe's views.
        constants: of `smn_cli.objectives.neighbourhood`, by name.
        sabotage: what happens to the teacher's space; "shuffled" gives images each other's places, "random" any.
    """

    options: dict[str, Any] = field(default_factory=dict)
    teachers: tuple[str, ...] = ()
    views: dict[str, Any] = field(default_factory=dict)
    constants: dict[str, float] = field(default_factory=dict)
    sabotage: str = ""

    @property
    def is_todays(self) -> bool:
        """Whether blocks and crops are those of the default now, not of the time when the recipe was chosen."""
        return not {"mask_only", "recipe", "train"} & self.options.keys()


def whole(options: dict[str, Any] | None = None, **others: Any) -> Arm:
    """With the whole mask and the mild crops that the default had while the recipe was chosen."""
    views = {"global_area": (0.6, 1.0), **others.pop("views", {})}
    return Arm({"mask_only": ("late:0",), **(options or {})}, views=views, **others)


SMALL = ("imagenette", "clothing", "cifar10")
"""Sets that end with *small images* where no witness is given, as all their rows of `native.py` do."""
JITTER: dict[str, Any] = {"jitter": (0.3, 0.3, 0.3, 0.05), "jitter_probability": 0.8}
ARMS = {
    "default": Arm(),
    "default, jittered": Arm(views=JITTER),
    "default, last": Arm(teachers=("last",)),
    "default, both": Arm(teachers=("stages", "last")),
    "default, lite2": Arm(teachers=("lite2",)),
    "stages": whole(),
    "last": whole(teachers=("last",)),
    "both": whole(teachers=("stages", "last")),
    "lite2": whole(teachers=("lite2",)),
    "stages+lite2": whole(teachers=("stages", "lite2")),
    "all": whole(teachers=("stages", "last", "lite2")),
    "slow": whole({"lr_scores": 0.01}),
    "quick": whole({"lr_scores": 0.1}),
    "long": whole({"steps": 600}),
    "long both": whole({"steps": 600}, teachers=("stages", "last")),
    "late": whole({"mask_only": ("name:blocks.[3-6].*", "name:conv_head.*")}),
    "cool": whole(constants={"TEMPERATURE": 0.05}),
    "warm": whole(constants={"TEMPERATURE": 0.2}),
    "near": whole(constants={"MAX_PERPLEXITY": 10.0}),
    "jitter": whole(views=JITTER),
    "small crops": whole(views={"global_area": (0.25, 1.0)}),
    "full": Arm({"train": "full"}, views={"global_area": (0.6, 1.0)}),
    "before": Arm({"recipe": "before"}),
    "rate x10": Arm({"lr_scores": 0.3}),
    "shuffled": Arm(sabotage="shuffled"),
    "random": Arm(sabotage="random"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--lite1", type=Path)
    parser.add_argument("--lite2", type=Path)
    parser.add_argument("--sets", nargs="+", default=[])
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=["stages"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--steps", type=int)
    parser.add_argument("--size", type=int)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision")
    parser.add_argument("--workers", type=int, default=1, help="runs at a time, which share the device")
    parser.add_argument("--max-train", type=int, default=1000)
    parser.add_argument("--max-test", type=int, default=500)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--looks", nargs="+", type=int, help="with --table: which of five judgements are made, 1 to 5")
    options = parser.parse_args()
    if options.table:
        rows = [json.loads(line) for line in options.results.read_text().splitlines()]
        rows = [row | ended(row) for row in rows if "error" not in row]
        print(table([with_looks(row, options.looks) if options.looks else row for row in rows]))
        return
    tasks = [(name, arm, seed, options) for seed in options.seeds for arm in options.arms for name in options.sets]
    with multiprocessing.get_context("spawn").Pool(options.workers, share_threads, (options.workers,)) as pool:
        for row in pool.imap_unordered(measured, tasks):
            with options.results.open("a") as file:
                file.write(json.dumps(row) + "\n")
            told = row.get("error") or row["judgements"][-1]["scores"]["raw k20"]
            print(row["data"], row["arm"], row["seed"], row["seconds"], told, flush=True)


def share_threads(num_workers: int) -> None:
    """Compute with a worker's part of the threads of torch, which has no more than the cores that it may run on."""
    torch.set_num_threads(max(1, torch.get_num_threads() // num_workers))


def with_looks(row: dict[str, Any], looks: list[int]) -> dict[str, Any]:
    """A run with some of its judgements; what was a real gain is still told by all of them."""
    made = row["judgements"]
    return row | {"seen": made, "judgements": [made[look - 1] for look in looks if look <= len(made)]}


def ended(row: dict[str, Any]) -> dict[str, bool]:
    """Whether smn would end a run before its first step, with its witness and without; whether it is of today; and
    whether the last layer is among its teachers.

    Nothing is asked first where another model teaches; some rows are older than that.
    """
    arm = ARMS[row["arm"]]
    has_model = any(name.startswith("lite") for name in arm.teachers)
    alarmed = bool(row["first_alarms"]) and not has_model
    fenced = alarmed or (row["data"] in SMALL and not has_model)
    return {"ended": alarmed, "fenced": fenced, "today": arm.is_todays, "itself": "last" in arm.teachers}


def measured(task: tuple[str, str, int, argparse.Namespace]) -> dict[str, Any]:
    """A row; of a run that failed what went wrong."""
    name, arm, seed, options = task
    row = {"data": name, "arm": arm, "seed": seed}
    started = time.monotonic()
    try:
        row |= measure(name, ARMS[arm], seed, options)
    except Exception:  # one run of many
        row["error"] = traceback.format_exc()
    return row | {"seconds": round(time.monotonic() - started, 1)}


def measure(name: str, arm: Arm, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """One run, scored at every judgement; linear probes at the last one and at the one that is kept."""
    RECIPES["before"] = replace(RECIPES["default"], native_objective="")
    split = load_labeled_split(options.data / name, max_train=options.max_train, max_test=options.max_test)
    with tempfile.TemporaryDirectory() as folder, sabotaged(arm, seed):
        session = start(split, arm, seed, options, Path(folder) / "run")
        images = CropCache([*split.train_paths, *split.test_paths], session.preprocessing)
        base, found, judged = features_of(session.context.base(), images, split), {}, []

        def on_judgement(step: int, judgement: Judgement) -> None:
            found[step] = features_of(session.network(), images, split)
            judged.append({"step": step, **judgement.to_json(), "density": round(session.trainer.source.density(), 4)})

        object.__setattr__(session.execution, "on_judgement", on_judgement)
        first_alarms, session.best_state.alarms = session.best_state.alarms, []
        started = time.monotonic()
        for _ in session.steps():
            pass
        seconds = time.monotonic() - started
    own, best = _BASE.setdefault((name, session.plan.views.global_size), {}), session.best_state
    own.update(own or scores_of(base, linear=True))
    for row in judged:
        linear = row["step"] in (best.best_step, session.plan.num_steps)
        row["scores"] = beside(own, scores_of(found[row["step"]], linear=linear))
    health = session.health
    agreement = health._base_agreement
    return {
        "size": session.plan.views.global_size,
        "precision": session.plan.precision,
        "steps": session.plan.num_steps,
        "first_alarms": first_alarms,
        "kept_step": best.best_step,
        "kept_density": round(density(best.tensors), 4)
        if best.tensors and arm.options.get("train") != "full"
        else None,
        "base_agreement": None if agreement is None else float(agreement.mean()),
        "base_health": health.base_health.to_json(),
        "base": {kind: {NAMES[key]: value for key, value in each.metrics.items()} for kind, each in own.items()},
        "judgements": judged,
        "training_seconds": round(seconds, 1),
        "versions": versions(),
    }


def start(split: LabeledSplit, arm: Arm, seed: int, options: argparse.Namespace, folder: Path) -> Session:
    """A run of the split's training images, before its first step."""
    names = {key: f"tf_efficientnet_{key}={getattr(options, key)}" for key in ("lite1", "lite2")}
    asked = {"seed": seed, "precision": options.precision, "teacher": tuple(names.get(t, t) for t in arm.teachers)}
    if arm.options.get("recipe") != "before":
        asked["witness"] = names["lite1" if "lite2" in arm.teachers else "lite2"]
    asked |= {key: getattr(options, key) for key in ("steps", "size")} | arm.options
    request = RunRequest(folder, check_images(split.train_paths, max_bad=0), AdaptOptions(**asked))
    execution = Execution(device=options.device, save_every_s=3600)
    return Session.start(request, load_backbone(LITE0_ARCH, lite0_weights()), execution=execution)


@contextmanager
def sabotaged(arm: Arm, seed: int) -> Iterator[None]:
    """What of an arm no option says."""
    whole = teacher_space

    def spoilt(context: Any) -> TaughtSpace:
        found = whole(context)
        generator = torch.Generator().manual_seed(seed)
        if arm.sabotage == "shuffled":
            return found._replace(space=found.space[torch.randperm(len(found.space), generator=generator)])
        space = torch.randn(found.space.shape, generator=generator)
        return found._replace(space=torch.nn.functional.normalize(space, dim=1).half())

    constants: dict[str, Any] = {key: value for key, value in arm.constants.items() if key != "TEMPERATURE"}
    recipe = RECIPES["default"]
    area = arm.views.get("global_area", recipe.native_area)
    views: ViewPlan = replace(recipe.views, **{key: value for key, value in arm.views.items() if key != "global_area"})
    temperature = arm.constants.get("TEMPERATURE", recipe.temperature)
    with (
        patch.dict(RECIPES, {"default": replace(recipe, views=views, native_area=area, temperature=temperature)}),
        patch.multiple("smn_cli.objectives.neighbourhood", **constants) if constants else patch.dict({}),
        patch.object(setup, "teacher_space", spoilt if arm.sabotage else whole),
    ):
        yield


def features_of(network: Network, images: CropCache, split: LabeledSplit) -> LabeledFeatures:
    """Of all labeled images."""
    paths, num = [*split.train_paths, *split.test_paths], len(split.train_paths)
    rows = extract_features(network, images.batches(paths))
    return LabeledFeatures(rows[:num], torch.tensor(split.train_labels), rows[num:], torch.tensor(split.test_labels))


def scores_of(features: LabeledFeatures, *, linear: bool) -> dict[str, Scores]:
    """By reading of the features."""
    return {"raw": score(features, replace(PROTOCOL, linear=linear)), **readout_scores(features, PROTOCOL)}


def beside(base: dict[str, Scores], adapted: dict[str, Scores]) -> dict[str, Any]:
    """Adapted accuracies and their gains with intervals, by reading and metric."""
    rows = {}
    for kind, scores in adapted.items():
        known = Scores(base[kind].groups, {key: base[kind].correct[key] for key in scores.correct})
        gains = compare(known, scores).gains
        for key, value in scores.metrics.items():
            gain = gains[key]
            rows[f"{kind} {NAMES[key]}"] = [round(x, 4) for x in (value, gain.value, gain.low, gain.high)]
    return rows


if __name__ == "__main__":
    main()
