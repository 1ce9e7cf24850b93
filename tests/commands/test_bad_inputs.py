"""Every way to go wrong gives one line, the contract's exit code, and no file."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.commands.conftest import SHORT, Road
from tests.conftest import RESNET, VIT, Outcome, Trap, random_weights, write_images


@pytest.fixture(scope="session")
def bad_inputs(tmp_path_factory: pytest.TempPathFactory, road: Road) -> Path:
    """Folders and files that are wrong in one way each."""
    made = tmp_path_factory.mktemp("bad")
    write_images(made / "few", 5)
    (made / "empty").mkdir()
    write_images(made / "garbage", 20)
    for number in range(3):
        (made / "garbage" / f"bad{number}.jpg").write_text("no image")
    write_images(made / "one_class" / "train" / "a", 3)
    write_images(made / "one_class" / "test" / "a", 3)
    write_images(made / "lacking" / "train" / "a", 2)
    write_images(made / "lacking" / "train" / "b", 2)
    write_images(made / "lacking" / "test" / "c", 2)
    save_file(random_weights(VIT), made / "vit.safetensors")
    torch.save({"x": Trap(made / "pickle_ran")}, made / "pickle.pth")
    data = road.adapter.read_bytes()
    (made / "damaged.safetensors").write_bytes(data[:200] + bytes([data[200] ^ 1]) + data[201:])
    (made / "truncated.safetensors").write_bytes(data[:-100])
    (made / "notes.txt").write_text("gone.png\n")
    (made / "notes_tar.tar").write_text("gone.png\n")
    shutil.copytree(road.run, made / "broken_run")
    (made / "broken_run" / "config.json").write_text("{")
    shutil.copytree(road.run, made / "stateless_run")
    (made / "stateless_run" / "checkpoint" / "state.pt").write_bytes(b"PK")
    return made


@pytest.fixture
def places(tmp_path: Path, road: Road, bad_inputs: Path) -> dict[str, str]:
    """What the words of the table stand for: good inputs, bad ones, and outputs to be."""
    good = {name: str(path) for name, path in vars(road).items()}
    bad = {path.name.partition(".")[0]: str(path) for path in bad_inputs.iterdir()}
    outputs = {"out": tmp_path / "out", "ckpt": tmp_path / "out.safetensors", "gone": tmp_path / "gone"}
    return {**good, **bad, "here": str(tmp_path), **{name: str(path) for name, path in outputs.items()}}


ADAPT = f"adapt {{images}} --arch {RESNET} --weights {{weights}} --out {{out}} {SHORT}"
EVAL = "eval {labeled} --adapter {adapter} --weights {weights} --json {out}"
BASE = f"--arch {RESNET} --weights {{weights}} --json {{out}}"

TABLE: dict[str, tuple[int, str, str]] = {
    "images missing": (5, ADAPT.replace("{images}", "{gone}"), "{gone} does not exist"),
    "images empty": (5, ADAPT.replace("{images}", "{empty}"), "no images in {empty}"),
    "images too few": (5, ADAPT.replace("{images}", "{few}"), "5 usable images are fewer than one batch of 8"),
    "images garbage": (5, ADAPT.replace("{images}", "{garbage}"), "3 of 23 images are unusable, more than --max-bad"),
    "images a list with a hole": (5, ADAPT.replace("{images}", "{notes}"), "line 1: gone.png is not a file"),
    "images of another kind": (5, ADAPT.replace("{images}", "{weights}"), "is neither an image nor a list"),
    "arch unknown": (5, ADAPT.replace(RESNET, "test_resnett"), "--arch test_resnett is not a timm model"),
    "arch left out": (2, ADAPT.replace(f"--arch {RESNET}", ""), "needs IMAGES and --arch"),
    "hub out of reach": (5, ADAPT.replace("--weights {weights}", ""), "cannot be had"),
    "weights missing": (5, ADAPT.replace("{weights}", "{gone}"), "--weights {gone} does not exist"),
    "weights misfitting": (5, ADAPT.replace("{weights}", "{vit}"), "does not fit test_resnet: it lacks conv1.0.weight"),
    "weights a pickle": (6, ADAPT.replace("{weights}", "{pickle}"), "it holds Python objects besides tensors"),
    "weights no weights": (6, ADAPT.replace("{weights}", "{notes}"), "it is no PyTorch file"),
    "steps and epochs": (2, ADAPT + " --epochs 2", "--steps and --epochs both set the length"),
    "steps below zero": (2, ADAPT.replace("--steps 3", "--steps -1"), "--steps is -1: expected 0 or more"),
    "steps no number": (2, ADAPT.replace("--steps 3", "--steps many"), "--steps"),
    "batch of one": (2, ADAPT.replace("--batch-size 8", "--batch-size 1"), "--batch-size is 1"),
    "size tiny": (2, ADAPT.replace("--size 32", "--size 8"), "--size is 8: expected 16 or more"),
    "max-bad beyond one": (2, ADAPT + " --max-bad 2", "--max-bad is 2.0: expected a fraction"),
    "learning rate infinite": (2, ADAPT.replace("--lr-scores 500", "--lr-scores inf"), "--lr-scores is inf"),
    "recipe unknown": (2, ADAPT.replace("--recipe paper", "--recipe soup"), "--recipe is soup: expected one of"),
    "norm-stats unknown": (2, ADAPT + " --norm-stats maybe", "--norm-stats is maybe"),
    "device unknown": (2, ADAPT + " --device abacus", "--device abacus cannot be used here"),
    "workers negative": (2, ADAPT + " --workers -1", "--workers"),
    "out no run folder": (2, ADAPT.replace("{out}", "{images}"), "exists and is not a run folder"),
    "out an older run": (2, ADAPT.replace("{out}", "{run}"), "exists: --resume continues it, --overwrite replaces"),
    "out below a file": (2, ADAPT.replace("{out}", "{weights}/run"), "cannot be made"),
    "resume nothing": (6, "adapt --resume --out {gone}", "{gone} is not a run folder"),
    "json in no folder": (2, ADAPT + " --json {gone}/r.json", "--json {gone}/r.json: its folder does not exist"),
    "json a folder": (2, ADAPT + " --json {empty}", "--json {empty} is a folder"),
    "plan without images": (2, f"plan --arch {RESNET}", "smn plan needs IMAGES and --arch"),
    "plan too few images": (5, f"plan {{few}} {BASE} --batch-size 8", "5 usable images are fewer than one batch of 8"),
    "plan garbage": (5, f"plan {{notes_tar}} {BASE}", "is not a tar file"),
    "plan a setting out of range": (2, f"plan {{images}} {BASE} --epochs 0", "--epochs is 0: expected 1 or more"),
    "pack no run": (6, "pack {images} --out {out}", "{images} is not a run folder"),
    "pack a damaged run": (6, "pack {broken_run} --out {out}", "config.json cannot be read"),
    "pack a run without state": (6, "pack {stateless_run} --out {out}", "state.pt is damaged"),
    "pack an unknown codec": (2, "pack {run} --out {out} --codec zip", "--codec zip is unknown: expected auto or one"),
    "pack over a file": (2, "pack {run} --out {adapter}", "--out {adapter} exists: --overwrite replaces it"),
    "pack into no folder": (2, "pack {run} --out {gone}/a", "the folder {gone} does not exist"),
    "pack onto a folder": (2, "pack {run} --out {empty}", "--out {empty} is a folder"),
    "pack over other weights": (4, "pack {run} --out {out} --weights {other_weights}", "not the one the run was"),
    "apply a damaged adapter": (6, "apply {damaged} --weights {weights} --out {ckpt}", "its checksum does not match"),
    "apply a truncated adapter": (6, "apply {truncated} --weights {weights} --out {ckpt}", "checksum does not match"),
    "apply no adapter": (6, "apply {weights} --weights {weights} --out {ckpt}", "it is a checkpoint of weights"),
    "apply nothing": (6, "apply {gone} --weights {weights} --out {ckpt}", "{gone} cannot be read"),
    "apply over other weights": (
        4, "apply {adapter} --weights {other_weights} --out {ckpt}", "1 of 75 tensors differ, first layer2.0.conv1.w"
    ),
    "apply over another network": (5, "apply {adapter} --weights {vit} --out {ckpt}", "does not fit test_resnet"),
    "apply to a name that timm would misread": (
        2, "apply {adapter} --weights {weights} --out {out}", "expected a name ending in .safetensors"
    ),
    "apply without out": (2, "apply {adapter} --weights {weights}", "--out"),
    "verify over other weights": (4, "verify {adapter} --weights {other_weights} --json {out}", "layer2.0.conv1"),
    "inspect a damaged adapter": (6, "inspect {damaged} --json {out}", "its checksum does not match"),
    "inspect a folder": (6, "inspect {images} --json {out}", "{images} is a folder: expected a file"),
    "eval nothing": (5, EVAL.replace("{labeled}", "{gone}"), "{gone} is not a folder"),
    "eval without classes": (5, EVAL.replace("{labeled}", "{images}"), "has no class folders with images"),
    "eval one class": (5, EVAL.replace("{labeled}", "{one_class}"), "has only the class a"),
    "eval a class without training images": (5, EVAL.replace("{labeled}", "{lacking}"), "class c is among the test"),
    "eval without a network": (2, "eval {labeled} --json {out}", "needs --adapter FILE, --run RUN or"),
    "eval adapter and run": (2, EVAL + " --run {run}", "--adapter and --run both"),
    "eval another arch": (2, EVAL + " --arch resnet50", "--arch resnet50 is not the adapter's test_resnet"),
    "eval over other weights": (4, EVAL.replace("{weights}", "{other_weights}"), "layer2.0.conv1.weight"),
    "eval a gate without number": (2, EVAL + " --fail-under knn.top1", "expected METRIC=NUMBER"),
    "eval k zero": (2, f"eval {{labeled}} {BASE} --k 0", "--k"),
    "eval too few for the classes": (2, f"eval {{labeled}} {BASE} --max-train 2", "--max-train 2 is fewer than the 3"),
    "unknown subcommand": (2, "adpat {images}", "adpat"),
    "unknown option": (2, "inspect {adapter} --jason -", "--jason"),
    "surplus argument": (2, "inspect {adapter} {adapter}", "{adapter}"),
}  # fmt: skip


def tree(*folders: Path) -> dict[Path, tuple[int, int]]:
    """Everything below some folders, files with size and time of their last change."""
    paths = [path for folder in folders for path in folder.rglob("*")]
    return {path: (path.stat().st_size, path.stat().st_mtime_ns) if path.is_file() else (0, 0) for path in paths}


@pytest.mark.parametrize(("code", "words", "message"), TABLE.values(), ids=TABLE.keys())
def test_a_bad_input_is_one_line_with_its_exit_code_and_leaves_no_file(
    code: int,
    words: str,
    message: str,
    places: dict[str, str],
    road: Road,
    bad_inputs: Path,
    run_cli: Callable[..., Outcome],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here = Path(places["here"])
    monkeypatch.chdir(here)
    before = tree(here, bad_inputs, road.run.parent)
    outcome = run_cli(*(word.format_map(places) for word in words.split()))
    assert outcome.code == code, outcome.err
    errors = [line for line in outcome.err.splitlines() if line.startswith("smn: ")]
    assert outcome.err.splitlines()[-1:] == errors, outcome.err
    assert message.format_map(places) in errors[0]
    assert "Traceback" not in outcome.err
    assert outcome.out == "" or words.startswith("verify")  # what it proved before it failed
    assert tree(here, bad_inputs, road.run.parent) == before


def test_debug_shows_the_traceback_before_the_line(road: Road, run_cli: Callable[..., Outcome]) -> None:
    outcome = run_cli("--debug", "pack", road.images)
    assert outcome.code == 6
    assert outcome.err.startswith("Traceback")
    assert outcome.err.splitlines()[-1].startswith("smn: ")
