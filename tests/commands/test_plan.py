"""smn plan says what smn adapt would do with the same words, and leaves nothing behind."""

import inspect
import json
import re
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from smn_cli.commands.adapt import adapt
from smn_cli.commands.plan import plan
from smn_cli.config.option import options_of
from smn_cli.config.options import AdaptOptions
from smn_cli.training import profiling
from tests.commands.conftest import SHORT, Road
from tests.conftest import RESNET, Outcome, write_images

Run = Callable[..., Outcome]
LITTLE = [*SHORT.split(), "--workers", 0, "--device", "cpu"]


def planned(run_cli: Run, images: Path, road: Road, *words: object) -> tuple[dict[str, Any], Outcome]:
    """The JSON of smn plan, and what was said."""
    options = ["--arch", RESNET, "--weights", road.weights, *LITTLE, *words, "--json", "-"]
    outcome = run_cli("plan", images, *options)
    assert outcome.code == 0, outcome.err
    return json.loads(outcome.out), outcome


def test_the_plan_is_that_of_the_run(run_cli: Run, road: Road) -> None:
    content, outcome = planned(run_cli, road.images, road)
    config = json.loads((road.run / "config.json").read_text())
    assert content["schema"] == "smn.plan/1"
    assert content["plan"] == config["plan"]
    assert content["images"] == {"found": 24, "used": 24, "looked_at": 24, "bad": {}}
    assert content["measured_steps"] >= 3
    assert not re.search(r"[(,] ?\w+ 0 s\b", outcome.err)
    assert content["step_s"] > 0
    assert content["images_per_s"] == pytest.approx(8 / content["step_s"])
    parts = content["seconds"]
    assert parts["total"] == pytest.approx(sum(parts.values()) - parts["total"])
    assert parts["steps"] == pytest.approx(3 * content["step_s"])
    assert "recipe paper: 3 steps of 8" in outcome.err


def test_the_state_that_is_foretold_is_the_one_that_is_written(run_cli: Run, road: Road) -> None:
    content, _ = planned(run_cli, road.images, road)
    written = sum(path.stat().st_size for path in road.run.rglob("*") if path.is_file())
    assert written < content["run_folder_bytes"] < 3 * written


def test_nothing_stays_behind(run_cli: Run, road: Road, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    planned(run_cli, road.images, road)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--recipe", "default", "--train", "full"], None),
        (["--recipe", "default", "--train", "norm"], "statistics alone"),
        (["--recipe", "default", "--keep", "last"], "mask"),
    ],
)
def test_adapter_bytes_follow_from_what_is_trained(
    run_cli: Run, road: Road, words: list[str], expected: str | None
) -> None:
    shared = ["--arch", RESNET, "--weights", road.weights, "--size", 32, "--batch-size", 8, "--steps", 3]
    outcome = run_cli("plan", road.images, *shared, *words, "--device", "cpu", "--workers", 0, "--json", "-")
    assert outcome.code == 0, outcome.err
    content = json.loads(outcome.out)
    if expected is None:
        assert content["adapter_bytes"] is None
    else:
        low, high = content["adapter_bytes"]
        assert low >= 4800
        assert (low < high) == (expected == "mask")


def test_bad_images_are_told_with_what_they_lead_to_and_stop_nothing(run_cli: Run, road: Road, tmp_path: Path) -> None:
    write_images(tmp_path, 20)
    (tmp_path / "000.png").write_bytes(b"no image")
    content, outcome = planned(run_cli, tmp_path, road)
    assert list(content["images"]["bad"]) == [str(tmp_path / "000.png")]
    assert "unusable: 1 of 20 looked at: more than --max-bad 0.01, at which smn adapt stops" in outcome.err


@pytest.mark.slow
def test_a_run_over_a_tar_is_planned_and_goes_the_whole_road(run_cli: Run, road: Road, tmp_path: Path) -> None:
    tar = tmp_path / "shard.tar"
    with tarfile.open(tar, "w") as file:
        file.add(road.images, "images")
    content, _ = planned(run_cli, tar, road)
    assert content["images"]["used"] == 24
    words = ["--arch", RESNET, "--weights", road.weights, "--out", tmp_path / "run", *SHORT.split()]
    assert run_cli("adapt", tar, *words, "--workers", 2).code == 0
    listed = (tmp_path / "run" / "images.txt").read_text().splitlines()
    assert listed == [str(tar / "images" / path.name) for path in sorted(road.images.iterdir())]
    assert run_cli("pack", tmp_path / "run", "--out", tmp_path / "a.safetensors").code == 0
    assert run_cli("verify", tmp_path / "a.safetensors", "--weights", road.weights).code == 0


@pytest.mark.slow
def test_more_images_than_a_run_can_use_are_told(
    run_cli: Run, road: Road, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(profiling, "SAMPLE_IMAGES", 1)
    write_images(tmp_path / "many", 60, size=16)
    content, _ = planned(run_cli, tmp_path / "many", road)
    counts = {name: content["images"][name] for name in ("found", "used", "looked_at")}
    assert counts == {"found": 60, "used": 24, "looked_at": 40}
    words = ["--arch", RESNET, "--weights", road.weights, "--out", tmp_path / "run", *SHORT.split()]
    outcome = run_cli("adapt", tmp_path / "many", *words)
    assert "found 60 images, more than the run can use: 24 images, 0 unusable in a random draw" in outcome.err


def test_both_commands_take_every_setting_that_a_user_may_wish() -> None:
    kept_from_users = {"score_start", "threshold"}
    declared = options_of(AdaptOptions).keys()
    assert declared == {field.name for field in fields(AdaptOptions)} - kept_from_users
    for command in (adapt, plan):
        assert declared < inspect.signature(command).parameters.keys()


def test_the_backbone_s_own_size_has_a_smaller_one_beside_it(
    run_cli: Run, road: Road, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("smn_cli.commands.plan.LONG_S", 0.0)
    words = ("plan", road.images, "--arch", RESNET, "--weights", road.weights, "--batch-size", 8, "--workers", 0)
    outcome = run_cli(*words, "--device", "cpu", "--json", "-")
    assert outcome.code == 0, outcome.err
    content = json.loads(outcome.out)
    assert (content["plan"]["views"]["global_size"], content["plan"]["teachers"]) == (160, ["stages"])
    assert content["smaller"]["size"] == 96
    assert "with --size 96: about" in outcome.err
    assert "--steps 50 takes a quarter of the steps, --size 96 sees smaller images" in outcome.err
    alone = run_cli(*words, "--size", 64, "--device", "cpu", "--json", "-")
    assert "smaller" not in json.loads(alone.out)
    assert "at 64 px that is more than 0 s: --steps 50 takes a quarter of the steps, and a GPU" in alone.err


NATIVE = "--teacher stages --size 32 --batch-size 8 --steps 12 --keep last --workers 0 --device cpu"
"""24 images are seen four times."""


def test_the_plan_of_a_run_that_keeps_what_its_trunk_gives_says_so_and_reckons_with_it(
    run_cli: Run, road: Road, tmp_path: Path
) -> None:
    words = [road.images, "--arch", RESNET, "--weights", road.weights, *NATIVE.split(), "--cache-trunk", "1MB"]
    outcome = run_cli("plan", *words, "--json", "-")
    assert outcome.code == 0, outcome.err
    content = json.loads(outcome.out)
    num_bytes = 2 * 24 * 32 * 8 * 8 * 2  # draws, images, activations before layer2, bytes of float16
    assert (content["plan"]["cached_views"], content["plan"]["cached_bytes"]) == (2, num_bytes)
    assert content["seconds"]["trunk"] > 0
    assert (
        "  cached views 2: what the frozen blocks before layer2 give for so many views of an image is computed once, "
        f"kept in {num_bytes:,} bytes, and used 2.0 times; --cache-trunk off draws new views" in outcome.err
    )
    assert run_cli("adapt", *words, "--out", tmp_path / "run").code == 0
    assert json.loads((tmp_path / "run" / "config.json").read_text())["plan"] == content["plan"]
    without = json.loads(run_cli("plan", *words[:-1], "off", "--json", "-").out)
    assert (without["plan"]["cached_views"], without["seconds"]["trunk"]) == (0, 0.0)
    assert "cached_views" not in without["plan"]["reasons"]


@pytest.mark.parametrize("command", ["plan", "adapt"])
@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ("2GB", "--cache-trunk 2GB: no block before layer1 is left whole; leave it out, or give auto"),
        ("plenty", "--cache-trunk is plenty: expected auto, off or the most bytes, such as 500MB or 2GB"),
    ],
)
def test_bytes_for_what_cannot_be_kept_are_wrong_usage(
    run_cli: Run, road: Road, tmp_path: Path, command: str, asked: str, words: str
) -> None:
    out = ["--out", tmp_path / "run"] if command == "adapt" else []
    shared = ["--arch", RESNET, "--weights", road.weights, *NATIVE.split(), "--mask-only", "late:0"]
    outcome = run_cli(command, road.images, *shared, *out, "--cache-trunk", asked)
    assert outcome.code == 2
    assert words in outcome.err
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_fewer_images_than_a_smaller_size_s_batch_have_a_plan_all_the_same(
    run_cli: Run, road: Road, tmp_path: Path
) -> None:
    write_images(tmp_path / "forty", 40)
    words = ("plan", tmp_path / "forty", "--arch", RESNET, "--weights", road.weights, "--workers", 0)
    outcome = run_cli(*words, "--device", "cpu", "--keep", "last", "--json", "-")
    assert outcome.code == 0, outcome.err
    content = json.loads(outcome.out)
    assert content["plan"]["batch_size"] == 32
    assert "smaller" not in content  # codes take 64 images a step
