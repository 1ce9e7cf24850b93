"""Runs with labels: the loss, the classifier that trains along, who judges, and what a resumed run is."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

from smn_cli.config.options import AdaptOptions
from smn_cli.data.images.validate import ImageSet
from smn_cli.data.labels.eval_split import load_labeled_split
from smn_cli.data.labels.labeled_images import find_labeled_images
from smn_cli.errors import BackboneError, CheckpointError, DataError, Interrupted, UsageError
from smn_cli.evaluation.classifier import LinearClassifier
from smn_cli.judging.classifier_judge import ClassifierJudge
from smn_cli.objectives.supervised import SupervisedObjective
from smn_cli.objectives.table import refuse_idle_options
from smn_cli.runs.run_folder import LABELS_FILE, OBJECTIVE_FILE
from smn_cli.runs.run_result import read_learned
from smn_cli.training.planning import make_plan
from smn_cli.training.run_context import Execution, RunRequest
from smn_cli.training.session import Session, StopSignal
from tests.conftest import CONVNET, VIT, write_images
from tests.small_runs import Workshop, digests, equal, log_of, scores_of

SMALL: dict[str, Any] = {
    "labels": "folders", "size": 32, "teacher_size": 32, "batch_size": 8, "steps": 6, "lr_scores": 0.2,
}  # fmt: skip


class LabeledRuns(Workshop):
    """Runs over one weights file and one folder of three classes."""

    def __init__(self, weights: Path, arch: str, data: Path, runs: Path) -> None:
        super().__init__(weights, arch, data, runs)
        self.data = data

    def start(self, name: str, *, execution: Execution | None = None, val: Any = None, **options: Any) -> Session:
        asked = AdaptOptions(**{**SMALL, **options})
        labeled = find_labeled_images([self.data], asked)
        assert labeled is not None
        request = RunRequest(
            self.runs / name, ImageSet(labeled.paths), asked, str(self.weights), val=val, labeled=labeled
        )
        return Session.start(request, self.backbone(), execution=execution)


Make = Callable[..., LabeledRuns]


@pytest.fixture
def runs(weights_file: Callable[[str], Path], labeled_folder: Path, tmp_path: Path) -> Make:
    def make(arch: str = CONVNET) -> LabeledRuns:
        return LabeledRuns(weights_file(arch), arch, labeled_folder, tmp_path)

    return make


def head_of(session: Session) -> dict[str, torch.Tensor]:
    classifier = session.trainer.objective.classifier()
    assert classifier is not None
    return {"weight": classifier.weight, "bias": classifier.bias}


def base_classifier(session: Session) -> LinearClassifier:
    return SupervisedObjective.base_classifier(session.folder.load_tensors(OBJECTIVE_FILE))


def objective(**options: Any) -> SupervisedObjective:
    plan = make_plan(AdaptOptions(labels="folders", **options), 200, num_classes=3)
    start = LinearClassifier(torch.randn(3, 4), torch.randn(3))
    return SupervisedObjective(torch.tensor([0, 1, 2, 0, 1]), start, scale=2.0, plan=plan, device=torch.device("cpu"))


def test_the_loss_is_the_cross_entropy_of_the_start_on_the_labels_of_the_positions() -> None:
    torch.manual_seed(3)
    own = objective()
    start = own.classifier()
    positions, features = torch.tensor([4, 0, 2]), torch.randn(3, 4)
    expected = functional.cross_entropy(start.logits(features), torch.tensor([1, 0, 2]))
    assert own.loss(0, positions, [features]).item() == pytest.approx(expected.item(), abs=1e-6)


def test_constant_decay_pulls_at_every_weight_alike() -> None:
    own = objective(recipe="paper")
    assert own.plan.head_constant_decay == 1e-4
    before = own.classifier()
    own.before_step(0.5)
    own.loss(0, torch.tensor([0]), [torch.zeros(1, 4)]).backward()  # type: ignore[no-untyped-call]
    own.after_backward(0)
    moved = before.weight - own.classifier().weight  # no feature, no gradient: the decay alone
    assert torch.allclose(moved, torch.full_like(moved, 0.5e-4), atol=1e-8)


def test_the_papers_classifier_starts_as_a_layer_of_the_seed() -> None:
    first, again, other = (objective(recipe="paper", seed=seed).classifier().weight for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    of_topk = objective(recipe="paper", mask_kind="topk", density=0.5)  # whose scores are not constant
    assert torch.equal(of_topk.classifier().weight, first)


def test_the_paper_recipe_with_labels_is_its_supervised_settings() -> None:
    plan = make_plan(AdaptOptions(recipe="paper", labels="folders"), 64 * 30, num_classes=10)
    assert (plan.objective, plan.score_init, plan.score_start, plan.lr_scores) == ("supervised", "constant", 1.0, 50.0)
    assert (plan.lr_head, plan.head_constant_decay, plan.norm_stats, plan.keep) == (7e-4, 1e-4, "adapt", "last")
    assert (plan.num_steps, plan.warmup_steps) == (150 * 30, 40 * 30)
    views = plan.views
    assert (views.num_global, views.num_local, views.global_area) == (1, 0, (1.0, 1.0))
    assert (views.jitter, views.solarize_probability) == ((0.4,) * 4, 0.2)


@pytest.mark.parametrize(("arch", "recipe", "norm_stats"), [(CONVNET, "default", "adapt"), (VIT, "paper", "frozen")])
def test_resumed_runs_equal_the_whole_one_bit_for_bit(runs: Make, arch: str, recipe: str, norm_stats: str) -> None:
    place = runs(arch)
    options: dict[str, Any] = {"recipe": recipe, "norm_stats": norm_stats, "keep": "last"}
    options |= {"lr_scores": 500.0} if recipe == "paper" else {}
    whole = place.finish("whole", **options)
    stop = StopSignal()
    steps = place.start("parts", **options).steps(stop)
    next(steps)
    stop.requested = True
    next(steps)
    with pytest.raises(Interrupted):
        next(steps)
    resumed = place.resume("parts")
    assert resumed.trainer.step == 2
    for _ in resumed.steps():
        pass
    assert equal(scores_of(resumed), scores_of(whole))
    assert equal(head_of(resumed), head_of(whole))
    assert equal(resumed.trainer.norm_stats(), whole.trainer.norm_stats())
    assert log_of(resumed) == log_of(whole)
    assert whole.trainer.source.density() < 1


@pytest.mark.slow
def test_workers_change_nothing(runs: Make) -> None:
    place = runs()
    alone = place.finish("alone", keep="last", steps=3)
    helped = place.finish("helped", keep="last", steps=3, execution=Execution(num_workers=2))
    assert equal(scores_of(alone), scores_of(helped))
    assert equal(head_of(alone), head_of(helped))


@pytest.mark.parametrize("train", ["mask", "head", "norm", "full"])
def test_every_baseline_trains_the_classifier_and_only_what_it_says(runs: Make, train: str) -> None:
    place = runs()
    session = place.start("run", train=train, keep="last", steps=2)
    before, scores = head_of(session), scores_of(session)
    base = digests(session.backbone.model)
    for _ in session.steps():
        pass
    assert not torch.equal(head_of(session)["weight"], before["weight"])
    assert (not equal(scores_of(session), scores)) == (train in ("mask", "full"))
    assert bool(session.trainer.norm_stats()) == (train == "norm")
    session.close()
    assert digests(session.backbone.model) == base
    learned = read_learned(session.folder)
    assert learned.classifier is not None
    assert torch.equal(learned.classifier.weight, head_of(session)["weight"])


def _many(folder: Path, *, classes: bool = True) -> Path:
    for label, name in enumerate(("red", "green", "blue")):
        write_images(folder / name, 30, seed=label, colour=label if classes else None)
    return folder


def test_held_out_images_are_of_every_class_and_what_nothing_beat_stays_the_base(runs: Make, tmp_path: Path) -> None:
    place = runs()
    place.data = _many(tmp_path / "many")  # so easy that the base is right about all
    session = place.finish("run")
    held_out = session.split.labeled.labels(session.split.held_out)  # type: ignore[union-attr]
    assert torch.bincount(held_out).tolist() == [10, 10, 10]
    assert not {*session.split.held_out} & {*session.split.training}
    evaluations = [line["evaluation"] for line in log_of(session) if "evaluation" in line]
    assert all(e["base classifier.top1"] == evaluations[0]["base classifier.top1"] for e in evaluations)
    learned = read_learned(session.folder)
    assert (learned.step, learned.alarms) == (0, ())
    assert all(bool(mask.all()) for mask in learned.masks.values())
    base = base_classifier(session)
    assert learned.classifier is not None
    assert torch.equal(learned.classifier.weight, base.weight)


def test_a_state_above_the_base_is_kept_with_its_own_classifier(runs: Make, tmp_path: Path) -> None:
    place = runs()
    place.data = _many(tmp_path / "many")
    session = place.start("run")
    assert isinstance(session.judge, ClassifierJudge)
    # a judge whose base is always wrong
    session.judge._base = torch.zeros_like(session.judge._base)
    for _ in session.steps():
        pass
    learned = read_learned(session.folder)
    assert learned.step > 0
    assert learned.classifier is not None
    assert not torch.equal(learned.classifier.weight, base_classifier(session).weight)
    if learned.step == session.trainer.step:
        assert torch.equal(learned.classifier.weight, head_of(session)["weight"])
        assert equal(learned.masks, session.trainer.source.masks())


def test_too_few_images_to_hold_out_are_told_and_keep_the_base(runs: Make) -> None:
    session = runs().finish("run")  # 36 images
    learned = read_learned(session.folder)
    assert session.trainer.step == 0
    assert "too few: " in learned.alarms[0]
    assert learned.classifier is not None


def test_labels_given_with_val_judge_the_classifier(runs: Make, labeled_folder: Path, tmp_path: Path) -> None:
    val = load_labeled_split(labeled_folder, for_selection=True)
    session = runs().finish("run", val=val)
    evaluations = [line["evaluation"] for line in log_of(session) if "evaluation" in line]
    assert evaluations
    assert all(round(e["classifier.top1"] * 18, 9) == round(e["classifier.top1"] * 18) for e in evaluations)
    for name in ("red", "violet"):
        write_images(tmp_path / "other" / name, 4)
    with pytest.raises(DataError, match="has classes that the training images do not: violet"):
        runs().start("stranger", val=load_labeled_split(tmp_path / "other"))


def test_a_damaged_file_of_the_run_is_told(runs: Make) -> None:
    place = runs()
    session = place.start("run", keep="last")
    for name in (LABELS_FILE, OBJECTIVE_FILE):
        path = session.folder.path / "checkpoint" / name
        whole = path.read_bytes()
        path.write_bytes(whole[:-1] + b"x")
        with pytest.raises(CheckpointError, match=f"{name} (is damaged|is not what it was)"):
            place.resume("run")
        path.write_bytes(whole)


def test_a_network_whose_classifier_is_no_linear_layer_is_refused(runs: Make) -> None:
    place = runs()
    asked = AdaptOptions(**SMALL)
    labeled = find_labeled_images([place.data], asked)
    assert labeled is not None
    backbone = replace(place.backbone(), classifier_name="")
    with pytest.raises(BackboneError, match="is not one linear layer over the features: `labels` cannot replace it"):
        Session.start(RunRequest(place.runs / "run", ImageSet(labeled.paths), asked, labeled=labeled), backbone)
    assert not (place.runs / "run").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": "csv"}, "`labels` is csv: expected folders"),
        ({"labels": "folders", "recipe": "swav"}, "`labels` with `recipe` swav: expected one of default, paper"),
        ({"labels": "folders", "queue": 64}, "`queue` has no effect with `recipe` default and `labels`"),
        ({"labels": "folders", "prototypes": 5}, "`prototypes` has no effect with `recipe` default and `labels`"),
        ({"label_fraction": 0.5}, "`label_fraction` has no effect without `labels` folders"),
        ({"labels": "folders", "label_fraction": 0.0}, "`label_fraction` is 0.0: expected above 0, at most 1"),
        ({"labels": "folders", "label_fraction": 1.5}, "`label_fraction` is 1.5: expected above 0, at most 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        refuse_idle_options(AdaptOptions(**options))
