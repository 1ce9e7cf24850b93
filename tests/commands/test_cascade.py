"""smn cascade: one file out of a run, the same bytes wherever it was stopped; smn eval tells its parts apart."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from smn_cli.commands import cascade as command
from tests.commands.conftest import Road, quietly
from tests.conftest import Outcome

pytestmark = pytest.mark.slow

Run = Callable[..., Outcome]
SHORT = ("--experts", 2, "--steps", 2, "--device", "cpu", "--workers", 0)


@pytest.fixture(scope="module")
def made(road: Road, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A cascade over the road's run, and its JSON."""
    out = tmp_path_factory.mktemp("cascades") / "whole"
    quietly("cascade", "--run", road.run, "--out", out, *SHORT, "--json", out.with_suffix(".json"))
    return out, json.loads(out.with_suffix(".json").read_text())


def test_it_writes_one_file_and_says_what_every_part_weighs(made: tuple[Path, dict[str, Any]], road: Road) -> None:
    out, content = made
    assert content["schema"] == "smn.cascade/1"
    assert content["file"] == str(out / "cascade.safetensors")
    sizes = content["bytes"]
    assert sizes["file"] == (out / "cascade.safetensors").stat().st_size
    assert sum(sizes.values()) == 2 * sizes["file"]
    assert content["dispatcher_file_bytes"] == road.adapter.stat().st_size == sizes["dispatcher"]
    assert content["ratio"] == sizes["file"] / road.adapter.stat().st_size
    assert content["separate_files_bytes"] > content["dispatcher_file_bytes"]
    assert sum(expert["num_images"] for expert in content["experts"]) == content["images"] == 24
    assert content["combination_bytes"]["whitened"] == sizes["combination"] > content["combination_bytes"]["none"] == 0


def test_killed_anywhere_it_goes_on_to_the_same_bytes(
    made: tuple[Path, dict[str, Any]], road: Road, run_cli: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "stopped"
    monkeypatch.setattr(command, "report_judgement", lambda *_, **__: os.kill(os.getpid(), signal.SIGTERM))
    stopped = run_cli("cascade", "--run", road.run, "--out", out, *SHORT)
    assert stopped.code == 130
    assert f"smn: stopped after step 1 of 2; the state is saved: continue with smn cascade --resume --out {out}" in (
        stopped.err
    )
    monkeypatch.undo()
    for _ in range(2):  # the second time all experts are there
        resumed = run_cli("cascade", "--resume", "--out", out, "--workers", 0)
        assert resumed.code == 0
        assert f"next: smn eval DATA --adapter {out / 'cascade.safetensors'} --weights {road.weights}" in resumed.out
        assert (out / "cascade.safetensors").read_bytes() == (made[0] / "cascade.safetensors").read_bytes()
        (out / "cascade.safetensors").unlink()


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        (["--out", "x"], 2, "smn cascade needs the --run of a dispatcher, or --resume with the --out of a cascade"),
        (["--run", "RUN", "--resume"], 2, "--resume goes on with the settings of the cascade"),
        (["--experts", "3", "--resume"], 2, "--resume goes on with the settings of the cascade"),
        (["--run", "RUN", "--mode", "both"], 2, "--mode is both: expected conditional or unconditional"),
        (["--run", "RUN", "--cluster", "em"], 2, "--cluster is em: expected gmm or kmeans"),
        (["--run", "RUN", "--dim", "5", "--combine", "none"], 2, "--dim 5: blocks side by side have"),
        (["--run", "RUN", "--dim", "99999", "--combine", "pca"], 2, "--dim 99999 is not to be had from 6 blocks"),
        (["--run", "RUN", "--out", "MADE"], 2, "exists: --resume continues it, --overwrite replaces it"),
        (["--run", "RUN", "--out", "RUN", "--overwrite"], 2, "is not a run folder of smn cascade"),
        (["--run", "MADE", "--out", "x"], 6, "is the folder of a cascade, not of a run"),
        (["--resume", "--out", "RUN"], 6, "is the run of a single mask, not a cascade"),
        (["--run", "RUN", "--out", "x", "--experts", "30"], 5, "make no 30 clusters"),
    ],
)
def test_what_does_not_fit_ends_in_one_line(
    words: list[str],
    code: int,
    line: str,
    made: tuple[Path, dict[str, Any]],
    road: Road,
    run_cli: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    places = {"RUN": road.run, "MADE": made[0]}
    outcome = run_cli("cascade", *(places.get(word, word) for word in words))
    assert (outcome.code, line in outcome.err) == (code, True), outcome.err


def test_an_expert_that_its_alarms_stopped_says_why(road: Road, run_cli: Run, tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for number in range(48):  # copies of two
        (images / f"{number}.png").write_bytes((road.images / f"{number % 2:03d}.png").read_bytes())
    words = ("cascade", images, "--run", road.run, "--out", tmp_path / "c", *SHORT, "--experts", 1, "--keep", "best")
    outcome = run_cli(*words, "--json", "-")
    assert outcome.code == 0, outcome.err
    assert "expert 0: alarm: copies" in outcome.err
    content = json.loads(outcome.out)
    assert [(expert["num_steps"], expert["kept_step"]) for expert in content["experts"]] == [(0, 0)]
    assert content["bytes"]["expert-0"] < content["bytes"]["dispatcher"] / 20


def test_pack_and_eval_say_what_to_do_with_a_cascades_folder(
    made: tuple[Path, dict[str, Any]], road: Road, run_cli: Run, tmp_path: Path
) -> None:
    for words in (["pack", made[0], "--out", tmp_path / "a"], ["eval", road.labeled, "--run", made[0]]):
        outcome = run_cli(*words)
        assert outcome.code == 6
        assert f"use its {made[0] / 'cascade.safetensors'}, which needs no packing" in outcome.err


def test_an_expert_is_a_run_that_can_be_packed_alone(
    made: tuple[Path, dict[str, Any]], run_cli: Run, tmp_path: Path
) -> None:
    # which of the clusters is large enough depends on how features round
    trained = next(number for number, expert in enumerate(made[1]["experts"]) if expert["num_steps"])
    packed = run_cli("pack", made[0] / f"expert-{trained}", "--out", tmp_path / "a.safetensors")
    assert packed.code == 0, packed.err
    assert (tmp_path / "a.safetensors").stat().st_size <= made[1]["separate_files_bytes"]


def test_eval_tells_the_cascade_its_parts_and_its_whitening_apart(
    made: tuple[Path, dict[str, Any]], road: Road, run_cli: Run, tmp_path: Path
) -> None:
    file = made[0] / "cascade.safetensors"
    words = ("eval", road.labeled, "--weights", road.weights, "--knn", "--linear", "--json", "-", "--no-cache")
    outcome = run_cli(*words, "--adapter", file, "--fail-under", "knn.top1=0.0", "--min-gain", "knn.top1=-1")
    assert outcome.code == 0, outcome.err
    content = json.loads(outcome.out)
    assert content["schema"] == "smn.eval/1"
    assert [gate["passed"] for gate in content["gates"]] == [True, True]
    rows = content["cascade"]
    modes = {f"{mode}{white}" for mode in ("conditional", "unconditional") for white in ("", "_whitened")}
    assert rows.keys() > {"dispatcher", "dispatcher_whitened", *modes}
    assert content["adapted"] == {group: rows["unconditional"][group] for group in ("knn", "linear")}
    assert rows["dispatcher"]["fitted_on"] == "nothing"
    assert rows["unconditional"]["fitted_on"] == "the cascade's training images"
    assert rows["dispatcher_whitened"]["fitted_on"] == "the bank of this evaluation, without labels"
    alone = json.loads(run_cli(*words, "--adapter", road.adapter).out)
    assert alone["base"] == content["base"]
    assert alone["adapted"] == {group: rows["dispatcher"][group] for group in ("knn", "linear")}
    assert "cascade" not in alone
    assert content["verdict"] in ("better", "same", "worse")
