"""Features from the cache are the features without it, or they are not taken."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from smn_cli.data.labels.eval_split import LabeledSplit, load_labeled_split
from smn_cli.data.preprocessing import Preprocessing
from smn_cli.evaluation.compare import LabeledFeatures
from smn_cli.features import cache_key
from smn_cli.features import embed as embedding_module
from smn_cli.features.cache import FeatureCache
from smn_cli.features.embed import Embedding, batch_size_for, labeled_features

PLAIN = Preprocessing(16, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))


class Counting(nn.Module):
    """A small network that counts the images it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten())
        self.num_seen = 0

    def forward(self, images: Tensor) -> Tensor:
        self.num_seen += len(images)
        features: Tensor = self.layers(images)
        return features


@pytest.fixture
def split(labeled_folder: Path, monkeypatch: pytest.MonkeyPatch) -> LabeledSplit:
    """54 images that count as settled."""
    monkeypatch.setattr(cache_key, "SETTLED_AFTER_NS", 0)
    return load_labeled_split(labeled_folder)


def identity() -> Mapping[str, str]:
    return {"state": "one"}


def equal(one: LabeledFeatures, other: LabeledFeatures) -> bool:
    return torch.equal(one.train, other.train) and torch.equal(one.test, other.test)


def test_the_second_time_no_image_is_embedded_and_no_bit_differs(split: LabeledSplit, tmp_path: Path) -> None:
    network, done = Counting(), list[int]()
    fresh = labeled_features(network, split, Embedding(PLAIN), identity=identity)
    first = labeled_features(network, split, Embedding(PLAIN, cache=FeatureCache(tmp_path)), identity=identity)
    assert network.num_seen == 2 * 54
    cache = FeatureCache(tmp_path)
    second = labeled_features(network, split, Embedding(PLAIN, cache=cache), identity=identity, progress=done.append)
    assert network.num_seen == 2 * 54
    assert (cache.num_found, done) == (54, [54])
    assert equal(fresh, first)
    assert equal(fresh, second)


def test_another_network_preparation_or_precision_is_embedded(split: LabeledSplit, tmp_path: Path) -> None:
    cache, network = FeatureCache(tmp_path), Counting()
    labeled_features(network, split, Embedding(PLAIN, cache=cache), identity=identity)
    labeled_features(network, split, Embedding(PLAIN, cache=cache), identity=lambda: {"state": "two"})
    labeled_features(network, split, Embedding(PLAIN, "bf16", cache=cache), identity=identity)
    larger = Preprocessing(17, PLAIN.mean, PLAIN.std)
    labeled_features(network, split, Embedding(larger, cache=cache), identity=identity)
    assert cache.num_found == 0
    assert network.num_seen == 4 * 54


def test_an_image_that_changes_meanwhile_keeps_features_out_of_the_cache(split: LabeledSplit, tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path / "cache")

    def touch(_done: int) -> None:
        split.train_paths[0].write_bytes(split.train_paths[1].read_bytes())

    labeled_features(Counting(), split, Embedding(PLAIN, cache=cache), identity=identity, progress=touch)
    assert not cache.folder.exists()


def test_without_a_cache_nothing_is_asked_or_written(split: LabeledSplit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding_module, "feature_key", None)
    labeled_features(Counting(), split, Embedding(PLAIN), identity=lambda: pytest.fail("asked"))


def test_large_images_come_in_small_batches_on_a_cpu_alone() -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert batch_size_for(cpu, 64) == batch_size_for(cuda, 64) == batch_size_for(cuda, 224) > batch_size_for(cpu, 224)
