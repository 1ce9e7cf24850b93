"""The comparisons of the paper through the command line: learned, packed, rebuilt."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.commands.conftest import SHORT, Road
from tests.conftest import RESNET, Outcome

Run = Callable[..., Outcome]
BEGIN = [*SHORT.split(), "--keep", "last"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        "--mask-kind topk --density 0.8 --density-start 1 --score-init magnitude",
        "--mask-only random:0.4 --mask-only all-but:layer4* --no-include-stem",
        "--mask-only name:*bn*",
    ],
)
def test_a_run_of_any_kind_packs_and_verifies(run_cli: Run, road: Road, tmp_path: Path, words: str) -> None:
    run, adapter = tmp_path / "run", tmp_path / "a.safetensors"
    base = ["--arch", RESNET, "--weights", road.weights]
    done = run_cli("adapt", road.images, *base, "--out", run, *BEGIN, *words.split(), "--json", "-")
    assert done.code == 0, done.err
    assert run_cli("pack", run, "--out", adapter).code == 0
    assert run_cli("verify", adapter, "--weights", road.weights).code == 0
    density = json.loads(done.out)["density"]
    if "topk" in words:
        assert density == pytest.approx(0.8, abs=1e-3)
    inspected = json.loads(run_cli("inspect", adapter, "--json", "-").out)
    assert inspected["density"] == pytest.approx(density)


def test_the_plan_says_what_is_asked_of_the_mask_and_why(run_cli: Run, road: Road) -> None:
    words = ["--mask-kind=topk", "--density=0.8", "--density-start=1", "--mask-only=blocks:1", "--mask-only=random:0.5"]
    done = run_cli("plan", road.images, "--arch", RESNET, "--weights", road.weights, *SHORT.split(), *words)
    assert done.code == 0, done.err
    assert "density 0.8: the largest scores of every tensor" in done.err
    assert "density start 1.0: falls to the density at the last step" in done.err
    assert "score init kaiming: equal scores have no largest" in done.err
    assert "mask only blocks:1 random:0.5: every other weight is kept for ever" in done.err


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("--density 0.5", "--density has no effect on a threshold: add --mask-kind topk"),
        ("--mask-only layer1", "--mask-only layer1: expected blocks:N, late:P, name:PATTERN"),
        ("--mask-only blocks:9", "--mask-only blocks:9: this network has 4 (layer1 to layer4)"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(
    run_cli: Run, road: Road, tmp_path: Path, words: str, line: str
) -> None:
    base = ["--arch", RESNET, "--weights", road.weights, "--out", tmp_path / "run"]
    done = run_cli("adapt", road.images, *base, *SHORT.split(), *words.split())
    assert (done.code, done.out) == (2, "")
    assert line in done.err.splitlines()[-1]
    assert "looks at the images" not in done.err
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_the_plan_expects_no_more_than_the_entropy_of_a_topk_mask(run_cli: Run, road: Road) -> None:
    sizes = {}
    for density in (0.5, 0.9):
        words = ["--mask-kind=topk", f"--density={density}", "--json", "-"]
        done = run_cli("plan", road.images, "--arch", RESNET, "--weights", road.weights, *SHORT.split(), *words)
        plan = json.loads(done.out)
        sizes[density] = plan["adapter_bytes"][1]
        fixed = plan["adapter_bytes"][1] - round(plan["weights"] / 8)
    assert fixed < 0  # at .9 less than a bit a weight
    assert sizes[0.9] < sizes[0.5]
