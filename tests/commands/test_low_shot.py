"""smn eval with few labels and with several adapters: JSON that only grew, gates, picture and page."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from smn_cli.adapters.adapter import load_adapter
from smn_cli.adapters.fingerprint import fingerprint
from smn_cli.backbones.loading import load_backbone
from smn_cli.data.labels.eval_split import load_labeled_split
from smn_cli.embedding import embed_split
from smn_cli.features.embed import Embedding
from tests.commands.conftest import Road, save_random_adapter
from tests.conftest import RESNET, Outcome

Run = Callable[..., Outcome]


def evaluated(run_cli: Run, road: Road, *words: object) -> dict[str, Any]:
    """The JSON of an evaluation of the road's adapter that has to work."""
    outcome = run_cli(
        "eval",
        road.labeled,
        "--adapter",
        road.adapter,
        "--weights",
        road.weights,
        "--no-controls",
        "--json",
        "-",
        *words,
    )
    assert outcome.code == 0, outcome.err
    content: dict[str, Any] = json.loads(outcome.out)
    return content


@pytest.mark.slow
def test_few_labels_only_add_to_the_json(road: Road, run_cli: Run) -> None:
    plain = evaluated(run_cli, road, "--linear", "--knn")
    content = evaluated(run_cli, road, "--linear", "--knn", "--label-fraction", "1,0.25", "--repeats", 3)
    rows = content.pop("low_shot")
    assert content == plain
    assert [(row["fraction"], row["num_images"], row["repeats"], row["missing_classes"]) for row in rows] == [
        (0.25, 9, 3, 0),
        (1.0, 36, 1, 0),
    ]
    [whole] = rows[1]["adapters"]
    assert whole["name"] == "a"
    assert whole["linear"] == plain["adapted"]["linear"]
    assert whole["knn"]["top1"] == plain["adapted"]["knn"]["top1"]
    assert rows[1]["base"]["knn"]["top1"] == plain["base"]["knn"]["top1"]


@pytest.mark.slow
def test_draws_follow_their_seed_and_ask_for_classes_or_not(road: Road, run_cli: Run) -> None:
    words = ("--label-fraction", "0.1", "--repeats", 8)
    even, again = (evaluated(run_cli, road, *words)["low_shot"] for _ in range(2))
    assert even == again
    uneven = evaluated(run_cli, road, *words, "--unbalanced")["low_shot"]
    assert even[0]["missing_classes"] == 0 < uneven[0]["missing_classes"]


@pytest.mark.slow
def test_several_adapters_are_scored_side_by_side(road: Road, run_cli: Run, other_adapter: Path) -> None:
    alone = evaluated(run_cli, road)
    both = evaluated(run_cli, road, "--adapter", other_adapter, "--label-fraction", "0.5")
    assert {name: both[name] for name in alone} == alone
    assert [entry["name"] for entry in both["adapters"]] == ["a", "b"]
    rest = {name: alone[name] for name in ("gain", "verdict", "details")}
    assert both["adapters"][0] == {"name": "a", **alone["adapted"], **rest}
    assert [entry["name"] for entry in both["low_shot"][0]["adapters"]] == ["a", "b"]
    swapped = run_cli(
        "eval", road.labeled, "--adapter", other_adapter, "--adapter", road.adapter, "--weights", road.weights,
        "--no-controls", "--json", "-",
    )  # fmt: skip
    content = json.loads(swapped.out)
    assert content["adapters"] == both["adapters"][::-1]  # what one adapter leaves behind is not seen by the next


def test_an_adapter_over_another_base_stops_the_evaluation_before_any_image(
    road: Road, run_cli: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stranger = tmp_path / "stranger.safetensors"
    save_random_adapter(road, stranger, weights=road.other_weights)
    monkeypatch.setattr("smn_cli.embedding.labeled_features", None)
    refused = run_cli("eval", road.labeled, "--adapter", road.adapter, "--adapter", stranger, "--weights", road.weights)
    assert refused.code == 4, refused.err
    assert "layer2.0.conv1.weight" in refused.err


def test_the_base_is_the_base_again_after_all_networks(road: Road, other_adapter: Path) -> None:
    backbone = load_backbone(RESNET, road.weights)
    before = fingerprint(backbone.model.state_dict()).digest
    adapters = [load_adapter(road.adapter), load_adapter(other_adapter)]
    split = load_labeled_split(road.labeled)
    base, *others = embed_split(backbone, adapters, split, Embedding(adapters[0].preprocessing))
    assert fingerprint(backbone.model.state_dict()).digest == before
    assert not any(torch.equal(base.test, other.test) for other in others)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("gate", "passed"),
    [
        (("--fail-under", "knn.top1@label:0.5=0"), True),
        (("--fail-under", "linear.top1@label:0.5=1.01"), False),
        (("--min-gain", "knn.top1@20@label:0.5=-1"), True),
        (("--min-gain", "knn.top1@label:0.5=2"), False),
    ],
)
def test_gates_reach_a_fraction_of_the_labels(
    gate: tuple[str, str], passed: bool, road: Road, run_cli: Run, tmp_path: Path
) -> None:
    words = ("--linear", "--knn", "--label-fraction", "0.5", "--repeats", 2, *gate, "--json", tmp_path / "r.json")
    outcome = run_cli("eval", road.labeled, "--adapter", road.adapter, "--weights", road.weights, *words)
    assert outcome.code == (0 if passed else 3), outcome.err
    [result] = json.loads((tmp_path / "r.json").read_text())["gates"]
    assert result["passed"] is passed


def test_a_base_alone_has_a_curve_without_gains(road: Road, run_cli: Run, tmp_path: Path) -> None:
    words = ("--arch", RESNET, "--weights", road.weights, "--size", 32, "--label-fraction", "1,0.2")
    outcome = run_cli("eval", road.labeled, *words, "--plot", tmp_path / "p.svg", "--json", "-")
    assert outcome.code == 0, outcome.err
    assert [row["adapters"] for row in json.loads(outcome.out)["low_shot"]] == [[], []]
    assert (tmp_path / "p.svg").exists()


def test_picture_and_page_are_written_where_they_are_asked_for(
    road: Road, run_cli: Run, other_adapter: Path, tmp_path: Path
) -> None:
    words = ("--adapter", other_adapter, "--label-fraction", "1,0.25", "--repeats", 2)
    evaluated(run_cli, road, *words, "--plot", tmp_path / "p.png", "--report", tmp_path / "r.html")
    with Image.open(tmp_path / "p.png") as image:
        assert image.format == "PNG"
    page = (tmp_path / "r.html").read_text()
    assert f"{road.labeled}, train/ and test/: 36 images of 3 classes" in page
    assert page.count("<td>b</td>") == 4
    assert "<h2>Scores, b</h2>" in page


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--label-fraction", "0"), "--label-fraction 0: expected numbers above 0 and at most 1, such as 1,0.1,0.01"),
        (("--label-fraction", "0.1,x"), "--label-fraction 0.1,x: expected numbers"),
        (("--label-fraction", "0.1,0.10"), "--label-fraction 0.1,0.10 has a number twice"),
        (("--fail-under", "knn.top1@label:0.25=0"), "knn.top1@label:0.25 is not among the metrics here"),
        (
            ("--label-fraction", "1", "--min-gain", "knn.top1@label:1.0=0"),
            "did you mean knn.top1@label:1? expected one of",
        ),
        (("--plot", "p.png"), "--plot p.png is about few labels: add --label-fraction"),
        (("--unbalanced",), "--unbalanced is about few labels"),
        (("--label-fraction", "1", "--plot", "p.jpg"), "--plot p.jpg: expected a name ending in .png or .svg"),
        (("--label-fraction", "1", "--report", "r.pdf"), "--report r.pdf: expected a name ending in .html"),
        (("--label-fraction", "1", "--report", "no/r.html"), "--report no/r.html: its folder does not exist"),
    ],
)
def test_wrong_usage_is_told_before_any_work(words: tuple[str, ...], reason: str, road: Road, run_cli: Run) -> None:
    refused = run_cli("eval", road.labeled, "--adapter", road.adapter, *words)
    assert (refused.code, reason in refused.err) == (2, True), refused.err


def test_an_adapter_named_twice_and_sizes_that_differ_are_refused(road: Road, run_cli: Run, tmp_path: Path) -> None:
    words = ("eval", road.labeled, "--weights", road.weights, "--adapter", road.adapter, "--adapter")
    twice = run_cli(*words, road.adapter)
    assert (twice.code, "is given twice" in twice.err) == (2, True)
    larger = tmp_path / "larger.safetensors"
    save_random_adapter(road, larger, weights=road.weights, size=48)
    refused = run_cli(*words, larger)
    assert (refused.code, "is for images of 48 px" in refused.err, "give --size" in refused.err) == (2, True, True)
    assert run_cli(*words, larger, "--size", 32).code == 0
