"""smn eval: --precision, --no-cache, and what the cache may never change."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from smn_cli.features import cache_key
from tests.commands.conftest import Road
from tests.conftest import RESNET, Outcome

pytestmark = pytest.mark.slow


@pytest.fixture
def cached(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache's folder; images count as settled."""
    monkeypatch.setattr(cache_key, "SETTLED_AFTER_NS", 0)
    return Path(os.environ["SMN_CACHE_HOME"], "features")


def untimed(content: dict[str, Any]) -> dict[str, Any]:
    """Without the one thing of an evaluation that differs from time to time."""
    return {**content, "native": {k: v for k, v in content["native"].items() if k != "milliseconds_an_image"}}


def evaluate(run_cli: Callable[..., Outcome], road: Road, *words: object) -> tuple[dict[str, Any], Outcome]:
    """The JSON of an evaluation of the road's adapter, and what was said."""
    outcome = run_cli("eval", road.labeled, "--adapter", road.adapter, "--weights", road.weights, "--json", "-", *words)
    assert outcome.code == 0, outcome.err
    return json.loads(outcome.out), outcome


def test_the_second_evaluation_is_the_first_without_embedding(
    run_cli: Callable[..., Outcome], road: Road, cached: Path
) -> None:
    first, said_first = evaluate(run_cli, road, "--linear", "--knn")
    assert "cache" not in said_first.err
    assert len(list(cached.iterdir())) == 3  # the base with its stages, the adapted network, the base at its own size
    second, said_second = evaluate(run_cli, road, "--linear", "--knn")
    assert "features of 162 images were in the cache" in said_second.err
    assert untimed(first) == untimed(second)


def test_the_base_of_an_adapter_is_the_base_alone(run_cli: Callable[..., Outcome], road: Road, cached: Path) -> None:
    arguments = ("eval", road.labeled, "--arch", RESNET, "--weights", road.weights, "--size", 32)
    assert run_cli(*arguments).code == 0
    _, said = evaluate(run_cli, road)
    assert "features of 108 images were in the cache" in said.err
    other = run_cli("eval", road.labeled, "--arch", RESNET, "--weights", road.other_weights, "--size", 32)
    assert (other.code, "cache" in other.err) == (0, False)


def test_no_cache_neither_reads_nor_writes(run_cli: Callable[..., Outcome], road: Road, cached: Path) -> None:
    fresh, _ = evaluate(run_cli, road, "--no-cache")
    assert not cached.exists()
    evaluate(run_cli, road)
    again, said = evaluate(run_cli, road, "--no-cache")
    assert "cache" not in said.err
    assert untimed(fresh) == untimed(again)


def test_the_precision_is_told_and_has_features_of_its_own(
    run_cli: Callable[..., Outcome], road: Road, cached: Path
) -> None:
    assert evaluate(run_cli, road)[0]["precision"] == "fp32"
    assert evaluate(run_cli, road, "--precision", "auto", "--device", "cpu")[0]["precision"] == "fp32"
    content, said = evaluate(run_cli, road, "--precision", "bf16")
    assert content["precision"] == "bf16"
    assert "cache" not in said.err
    assert len(list(cached.iterdir())) == 6


def test_an_unknown_precision_is_wrong_usage(run_cli: Callable[..., Outcome], road: Road) -> None:
    refused = run_cli("eval", road.labeled, "--arch", RESNET, "--precision", "fp8")
    assert (refused.code, "--precision fp8: expected one of auto, fp32, bf16" in refused.err) == (2, True)
