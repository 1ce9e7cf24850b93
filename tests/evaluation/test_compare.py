"""A comparison scores both networks alike and reports under the contract's keys."""

import json

import pytest
import torch
from torch import Tensor, nn

from smn_cli.evaluation.compare import LabeledFeatures, ScoringProtocol, compare, score
from smn_cli.evaluation.features import extract_features
from smn_cli.evaluation.intervals import paired_gain
from smn_cli.evaluation.knn import knn_predict
from smn_cli.evaluation.linear_probe import linear_probe


def features(*, spread: float, num_train: int = 60, num_test: int = 45) -> LabeledFeatures:
    """Three clouds; the wider, the harder."""
    generator = torch.Generator().manual_seed(1)

    def cloud(count: int) -> tuple[Tensor, Tensor]:
        labels = torch.arange(count) % 3
        return torch.eye(3)[labels] + torch.randn(count, 3, generator=generator) * spread, labels

    return LabeledFeatures(*cloud(num_train), *cloud(num_test))


def test_scores_are_the_shares_of_right_predictions() -> None:
    hard = features(spread=0.8)
    scores = score(hard, ScoringProtocol(knn=True, linear=True, ks=(20, 5)))
    neighbours = knn_predict(hard.train, hard.train_labels, hard.test, ks=[20, 5], num_classes=3)
    probe, c = linear_probe(hard.train, hard.train_labels, hard.test)
    expected = {"knn.top1": neighbours[20], "knn.top1@5": neighbours[5], "linear.top1": probe}
    shares = {name: int((found == hard.test_labels).sum()) / 45 for name, found in expected.items()}
    assert scores.metrics == pytest.approx(shares)
    assert 0.4 < min(shares.values()) <= max(shares.values()) < 1.0
    assert scores.groups == {
        "knn": {"k": 20, "temperature": 0.1, "top1": shares["knn.top1"], "top1@5": shares["knn.top1@5"]},
        "linear": {"top1": shares["linear.top1"], "C": c},
    }


def test_k_is_at_most_the_training_images_and_named_once() -> None:
    scores = score(features(spread=0.5, num_train=30), ScoringProtocol(ks=(200, 20, 30)))
    assert list(scores.groups["knn"]) == ["k", "temperature", "top1", "top1@20"]
    assert scores.groups["knn"]["k"] == 30


def test_classes_that_only_test_or_only_training_images_have_are_scored() -> None:
    easy = features(spread=0.01)
    train_lacks = LabeledFeatures(easy.train, easy.train_labels, easy.test, easy.test_labels + 1)
    assert score(train_lacks, ScoringProtocol(ks=(5,))).metrics == {"knn.top1": 0.0}
    test_lacks = LabeledFeatures(easy.train, easy.train_labels, easy.test[:1], easy.test_labels[:1])
    assert score(test_lacks, ScoringProtocol(ks=(5,), linear=True)).metrics == {"knn.top1": 1.0, "linear.top1": 1.0}


def test_the_json_has_the_keys_of_the_contract() -> None:
    base = score(features(spread=0.9), ScoringProtocol(linear=True, ks=(20,)))
    adapted = score(features(spread=0.1), ScoringProtocol(linear=True, ks=(20,)))
    content = json.loads(json.dumps(compare(base, adapted).to_json()))
    assert list(content) == ["base", "adapted", "gain", "verdict"]
    assert content["base"].keys() == content["adapted"].keys() == {"knn", "linear"}
    assert content["base"]["knn"].keys() == content["adapted"]["knn"].keys() == {"top1", "k", "temperature"}
    assert content["gain"].keys() == {"knn.top1", "linear.top1"}
    gain = content["gain"]["knn.top1"]
    assert list(gain) == ["value", "low", "high"]
    assert gain["value"] == pytest.approx(content["adapted"]["knn"]["top1"] - content["base"]["knn"]["top1"])
    assert content["verdict"] == "better"


def test_gains_pair_the_same_test_images() -> None:
    base = score(features(spread=0.9), ScoringProtocol(ks=(20,)))
    adapted = score(features(spread=0.1), ScoringProtocol(ks=(20,)))
    assert compare(base, adapted).gains["knn.top1"] == paired_gain(
        base.correct["knn.top1"], adapted.correct["knn.top1"]
    )
    assert compare(adapted, base).verdict == "worse"
    assert compare(base, base).verdict == "same"


def test_a_base_alone_has_scores_but_no_verdict() -> None:
    comparison = compare(score(features(spread=0.5), ScoringProtocol()), None)
    assert list(comparison.to_json()) == ["base"]
    assert comparison.verdict is None


def test_features_come_in_the_order_of_the_images_without_gradients() -> None:
    images = torch.arange(7 * 3 * 4, dtype=torch.float32).view(7, 3, 2, 2)
    layer = nn.Conv2d(3, 2, 2, bias=False)
    network = nn.Sequential(layer, nn.Flatten()).eval()
    seen: list[int] = []
    found = extract_features(network, list(torch.split(images, 3)), progress=seen.append)
    torch.testing.assert_close(found, images.flatten(1) @ layer.weight.detach().flatten(1).T)
    assert seen == [3, 6, 7]
    assert not found.requires_grad
