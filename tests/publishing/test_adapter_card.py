"""A model card says what an adapter is, weighs and does, in the words of its file and of smn eval."""

import ast
import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml
from markdown_it import MarkdownIt

from smn_cli.adapters.adapter import adapter_from_bytes
from smn_cli.adapters.stored import StoredAdapter
from smn_cli.errors import FileError, UsageError
from smn_cli.publishing.adapter_card import adapter_card, read_evaluation, scores_in
from tests.adapters.forging import put_together, take_apart, toy_adapter

EVALUATION = {
    "schema": "smn.eval/1",
    "data": {"path": "/home/me/secret", "train": 1200, "test": 1000, "classes": ["a", "b"], "split": "folders"},
    "base": {"knn": {"top1": 0.8, "k": 20}, "linear": {"top1": 0.9, "c": 1.0}},
    "adapted": {"knn": {"top1": 0.85, "k": 20}, "linear": {"top1": 0.89, "c": 1.0}},
    "gain": {
        "knn.top1": {"value": 0.05, "low": 0.031, "high": 0.07},
        "linear.top1": {"value": -0.01, "low": -0.02, "high": 0.0},
    },
    "verdict": "better",
    "preprocessing": {"size": 32, "mean": [0.5], "std": [0.5], "interpolation": "bicubic"},
}


def stored(**changes: Any) -> StoredAdapter:
    header, parts = take_apart(toy_adapter().described(licence="mit", description="Steel plates").to_bytes())
    return adapter_from_bytes(put_together({**header, **changes}, parts))


def front_of(card: str) -> dict[str, Any]:
    _, front, _ = card.split("---\n", 2)
    data: dict[str, Any] = yaml.safe_load(front)
    return data


def test_the_front_matter_is_what_the_hub_files_it_by() -> None:
    front = front_of(adapter_card(stored(), "me/net", EVALUATION))
    told = {key: front[key] for key in ("library_name", "base_model", "base_model_relation", "license", "metrics")}
    assert told == {
        "library_name": "smn",
        "base_model": "timm/toy.made_up",
        "base_model_relation": "adapter",
        "license": "mit",
        "metrics": ["accuracy"],
    }
    assert "smn" in front["tags"]
    [results] = [each["results"] for each in front["model-index"]]
    metrics = [metric for each in results for metric in each["metrics"]]
    assert [metric["value"] for metric in metrics] == [0.85, 0.89]
    assert metrics[0]["name"] == "knn.top1, gain +0.0310 to +0.0700"


def test_scores_stand_with_their_intervals_and_no_path_does() -> None:
    card = adapter_card(stored(), "me/net", EVALUATION)
    assert "| knn.top1 | 0.800 | 0.850 | +0.050 (+0.031 to +0.070) |" in card
    assert "| linear.top1 | 0.900 | 0.890 | -0.010 (-0.020 to +0.000) |" in card
    assert "1,000 images of 2 classes, with the labels of\n1,200 others, at 32 px. The verdict: better." in card
    assert "secret" not in card
    assert "What it does" not in adapter_card(stored(), "me/net")


def test_what_it_weighs_and_is_are_the_file_s_own_words() -> None:
    adapter = stored()
    card = adapter_card(adapter, "me/net")
    for told in (
        "\nSteel plates\n",
        adapter.header.base_digest,
        adapter.header.adapted_digest,
        f"| the adapter file | {adapter.size_bytes:,} |",
        f"| masked weights as float32 | {4 * adapter.header.num_weights:,} |",
        "| licence | mit |",
        'timm.create_model("toy.made_up", pretrained=True, num_classes=0)',
        'smn_cli.load_adapter("hf://me/net")',
    ):
        assert told in card
    assert "its classifier" not in card


def test_a_base_from_a_file_is_named_as_that() -> None:
    card = adapter_card(stored(tag=""), "me/net")
    assert "base_model" not in front_of(card)
    assert "| base | toy, weights from a file |" in card
    assert "smn apply hf://me/net --weights FILE --out adapted/" in card


def test_scores_are_read_back(tmp_path: Path) -> None:
    path = tmp_path / "eval.json"
    path.write_text(json.dumps(EVALUATION))
    assert read_evaluation(path) == EVALUATION
    assert [score.metric for score in scores_in(EVALUATION)] == ["knn.top1", "linear.top1"]


@pytest.mark.parametrize(
    ("text", "error", "reason"),
    [
        ("{", FileError, "cannot be read"),
        ("[]", FileError, "is not what smn eval --json wrote"),
        ('{"schema": "smn.pack/1"}', FileError, "is not what smn eval --json wrote"),
        ('{"schema": "smn.eval/1", "base": {}}', UsageError, "is of a base alone"),
        ('{"schema": "smn.eval/1", "gain": {"knn.top1": {"value": 1}}}', FileError, "is damaged"),
        ('{"schema": "smn.eval/1", "gain": {}}', FileError, "is damaged: KeyError 'data'"),
        ('{"schema": "smn.eval/1", "gain": []}', FileError, "is damaged: AttributeError"),
        ("[" * 100_000, FileError, "nested too deeply"),
    ],
)
def test_what_is_no_evaluation_of_an_adapter_is_refused(
    text: str, error: type[Exception], reason: str, tmp_path: Path
) -> None:
    path = tmp_path / "eval.json"
    path.write_text(text)
    with pytest.raises(error, match=reason):
        read_evaluation(path)


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        ("data", "train", "many"),
        ("data", "test", True),
        ("data", "classes", 2),
        ("preprocessing", "size", "32"),
        ("gain", "knn.top1", {"value": 10**400, "low": 0, "high": 0}),
        ("base", "knn", []),
    ],
)
def test_an_evaluation_of_other_kinds_of_values_is_refused(part: str, key: str, value: Any, tmp_path: Path) -> None:
    changed = deepcopy(EVALUATION)
    changed[part][key] = value  # type: ignore[index]
    (tmp_path / "eval.json").write_text(json.dumps(changed))
    with pytest.raises(FileError, match="is damaged"):
        read_evaluation(tmp_path / "eval.json")


HOSTILE = '<img src=x onerror=alert(1)> `x` | [a](http://b) x", pretrained=True); import os  # ```'


def test_what_a_file_says_stays_text_in_its_page() -> None:
    """An adapter may be a stranger's, and so may its evaluation."""
    changed: Any = deepcopy(EVALUATION) | {"verdict": HOSTILE}
    name = f"knn.{HOSTILE}"
    changed["gain"] = {name: EVALUATION["gain"]["knn.top1"]}  # type: ignore[index]
    changed["base"]["knn"][HOSTILE] = changed["adapted"]["knn"][HOSTILE] = 0.5
    card = adapter_card(stored(arch=HOSTILE, tag="t", license=HOSTILE, description=HOSTILE), "me/net", changed)
    page = MarkdownIt("commonmark").enable("table").parse(card.split("---\n", 2)[2])
    inline = [child for token in page for child in token.children or []]
    assert not [token for token in page if token.type == "html_block"]
    assert not {"html_inline", "link_open", "image"} & {child.type for child in inline}
    assert sum(HOSTILE in child.content for child in _joined(page)) == 5  # description, verdict, metric, base, licence
    [code] = [token.content for token in page if token.type == "fence"]
    [made] = [node for node in ast.walk(ast.parse(code)) if getattr(node, "attr", "") == "create_model"]
    assert made
    assert [type(line).__name__ for line in ast.parse(code).body] == ["Import", "Assign", "Assign", "Assign"]


def _joined(page: list[Any]) -> list[Any]:
    """Inline tokens whose content is what a reader sees."""
    seen = [token for token in page if token.type == "inline"]
    for token in seen:
        token.content = "".join(child.content for child in token.children)
    return seen
