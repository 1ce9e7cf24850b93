"""Promises that a review found broken once: what is deleted, restored, derived, remembered."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch

import smn_cli
from smn_cli.adapters.fingerprint import fingerprint
from smn_cli.config.options import AdaptOptions
from smn_cli.errors import CheckpointError, DataError, TrainingError, UsageError
from smn_cli.runs.run_folder import RunFolder
from smn_cli.training.planning import make_plan
from tests.conftest import RESNET, Outcome
from tests.small_runs import Workshop

Make = Callable[..., Workshop]


def test_overwrite_spares_a_folder_that_only_looks_like_a_run(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text(json.dumps({"architectures": ["ViT"]}))
    with pytest.raises(UsageError, match="is not a run folder of smn"):
        RunFolder.check_free(model, overwrite=True)
    assert (model / "config.json").exists()


def test_demo_overwrites_only_an_earlier_demo(run_cli: Callable[..., Outcome], tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    (mine / "images").mkdir(parents=True)
    (mine / "images" / "holiday.jpg").write_text("mine")
    refused = run_cli("demo", "--out", mine, "--overwrite")
    assert refused.code in (2, 5)  # 5 where the demo's weights are not installed
    assert (mine / "images" / "holiday.jpg").read_text() == "mine"


def test_a_start_that_fails_leaves_nothing_behind(workshop: Make, tmp_path: Path) -> None:
    place = workshop()
    place.images.good.append(tmp_path / "gone.png")
    with pytest.raises(DataError, match=r"gone\.png can no longer be read"):
        place.start("run", recipe="default", queue=None)
    assert {path.name for path in place.runs.iterdir()} == {"images"}


def test_a_short_run_on_many_images_has_prototypes_for_the_images_it_sees() -> None:
    assert make_plan(AdaptOptions(size=64, steps=10), 20_000).num_prototypes == 10 * 64 // 15


def test_few_images_leave_none_to_judge_by_and_say_so() -> None:
    plan = make_plan(AdaptOptions(size=64), 80)
    assert plan.num_holdout == 0
    assert "nothing can be judged" in plan.reasons["num_holdout"]
    assert make_plan(AdaptOptions(size=64), 94).num_holdout == 30


def test_keeping_the_best_of_the_paper_recipe_holds_images_out() -> None:
    assert make_plan(AdaptOptions(recipe="paper"), 1000).num_holdout == 0
    assert make_plan(AdaptOptions(recipe="paper", keep="best"), 1000).num_holdout == 100


@pytest.mark.slow
def test_adapting_statistics_through_the_api_gives_an_adapter_and_the_base_back(
    weights_file: Callable[[str], Path], image_folder: Path
) -> None:
    model = timm.create_model(RESNET, checkpoint_path=str(weights_file(RESNET))).eval()
    model.reset_classifier(0)
    before = fingerprint(model.state_dict()).digest
    options = AdaptOptions(recipe="paper", steps=3, size=32, batch_size=8, local_views=0, lr_scores=5000.0)
    adapter = smn_cli.adapt(model, image_folder, options)
    assert fingerprint(model.state_dict()).digest == before
    assert adapter.header.norm_stats
    assert adapter.header.base_digest == before
    adapter.apply(model)
    assert fingerprint(model.state_dict()).digest == adapter.header.adapted_digest != before


@pytest.mark.parametrize("damage", ["missing", "flipped"])
def test_a_damaged_teacher_is_noticed(workshop: Make, damage: str) -> None:
    place = workshop()
    path = place.start("run", recipe="default", queue=None, steps=2).folder.path / "checkpoint" / "teacher.safetensors"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.unlink() if damage == "missing" else path.write_bytes(bytes(data))
    with pytest.raises(CheckpointError, match=r"teacher\.safetensors"):
        place.resume("run")


def test_resume_refuses_settings_of_its_own(run_cli: Callable[..., Outcome], workshop: Make) -> None:
    place = workshop()
    place.start("run", steps=2)
    refused = run_cli("adapt", "--resume", "--out", place.runs / "run", "--steps", 50)
    assert refused.code == 2
    assert "goes on with the settings of the run" in refused.err


@pytest.mark.slow
def test_labels_that_judge_are_remembered_on_resume(
    run_cli: Callable[..., Outcome], workshop: Make, labeled_folder: Path, tmp_path: Path
) -> None:
    place = workshop()
    words = ("--arch", place.arch, "--weights", place.weights, "--out", tmp_path / "run", "--val", labeled_folder)
    shape = ("--size", 32, "--teacher-size", 32, "--batch-size", 8, "--steps", 2, "--keep", "last")
    assert run_cli("adapt", tmp_path / "images", *words, *shape).code == 0
    resumed = run_cli("adapt", "--resume", "--out", tmp_path / "run", "--json", "-")
    assert resumed.code == 0, resumed.err
    assert json.loads((tmp_path / "run" / "config.json").read_text())["val"] == str(labeled_folder)


def test_features_that_are_no_numbers_stop_the_run_with_a_word(workshop: Make) -> None:
    place = workshop()
    session = place.start("run", recipe="default", queue=None, train="full", lr_scores=1e30, steps=2)
    with pytest.raises(TrainingError, match=r"no longer finite|the loss is"):
        for _ in session.steps():
            pass


def test_the_backbone_is_the_base_again_when_a_session_is_closed(workshop: Make) -> None:
    place = workshop()
    session = place.start("run", norm_stats="adapt", steps=2)
    before = {name: tensor.clone() for name, tensor in place.backbone().model.state_dict().items()}
    for _ in session.steps():
        pass
    changed = session.backbone.model.state_dict()
    assert not all(torch.equal(changed[name], tensor) for name, tensor in before.items())
    session.close()
    restored = session.backbone.model.state_dict()
    assert all(torch.equal(restored[name], tensor) for name, tensor in before.items())
