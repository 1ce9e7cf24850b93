"""Features of every way through a cascade: those that it embeds itself, those of its parts, and fair whitenings."""

from pathlib import Path

import pytest
import torch

from smn_cli.backbones.loading import Backbone, wrap_backbone
from smn_cli.cascade.blocks import expert_blocks, features_under
from smn_cli.cascade.combining import KINDS
from smn_cli.cascade.costs import combination_bytes
from smn_cli.cascade.scoring import FITTED, NOTHING, STORED, compare_cascade, ways_of
from smn_cli.data.labels.eval_split import load_labeled_split
from smn_cli.data.preprocessing import Preprocessing
from smn_cli.data.views.loader import image_batches
from smn_cli.evaluation.compare import ScoringProtocol
from smn_cli.features.embed import Embedding
from tests.cascade.small_cascades import SIZE, small_cascade, small_model, small_parts
from tests.conftest import write_images

NUM_TRAIN = 40


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Twelve images."""
    folder = tmp_path_factory.mktemp("images")
    write_images(folder, 12)
    return sorted(folder.iterdir())


@pytest.fixture
def backbone() -> Backbone:
    return wrap_backbone(small_model(), arch="small")


@pytest.fixture
def embedding() -> Embedding:
    return Embedding(Preprocessing(SIZE, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2), "bilinear"))


@pytest.mark.parametrize("mode", ["conditional", "unconditional"])
def test_its_own_way_is_what_the_cascade_embeds(
    mode: str, paths: list[Path], backbone: Backbone, embedding: Embedding
) -> None:
    cascade = small_cascade("none", mode)
    dispatched = features_under(cascade.dispatcher, backbone, paths, embedding)
    blocks = expert_blocks(cascade.dispatcher, cascade.experts, dispatched, backbone, paths, embedding)
    batch = next(image_batches(paths, embedding.preprocessing))
    expected = cascade.embed(backbone.model, batch)
    assert torch.allclose(ways_of(cascade, blocks, 10)[mode].features, expected, atol=1e-5)


def test_blocks_of_their_own_images_are_rows_of_all_blocks(
    paths: list[Path], backbone: Backbone, embedding: Embedding
) -> None:
    cascade, before = small_cascade(), {k: v.clone() for k, v in backbone.model.state_dict().items()}
    seen: list[int] = []
    dispatched = features_under(cascade.dispatcher, backbone, paths, embedding)
    parts = (cascade.dispatcher, cascade.experts, dispatched, backbone, paths, embedding)
    everything = expert_blocks(*parts, progress=seen.append)
    routes = torch.tensor([0, 1] * 5 + [0, 0])  # nothing for the last expert
    own = expert_blocks(*parts, routes=routes)
    assert torch.equal(own[0], dispatched)
    for number in range(len(cascade.experts)):
        rows = routes == number
        assert torch.allclose(own[number + 1][rows], everything[number + 1][rows], atol=1e-5)
        assert not own[number + 1][~rows].any()
    assert torch.equal(everything[-1], dispatched)  # the last expert is the dispatcher
    assert not torch.equal(everything[1], dispatched)
    assert seen == [12, 24]
    assert all(torch.equal(tensor, before[name]) for name, tensor in backbone.model.state_dict().items())


@pytest.mark.parametrize("kind", ["none", "random", "whitened", "pca"])
def test_only_what_the_file_does_not_hold_is_fitted_here(kind: str) -> None:
    _, blocks = small_parts()
    ways = ways_of(small_cascade(kind), blocks, NUM_TRAIN)
    own = NOTHING if kind == "none" else STORED
    assert ways["dispatcher"].fitted_on == NOTHING
    assert torch.equal(ways["dispatcher"].features, blocks[0])
    assert ways["conditional"].fitted_on == own
    assert ways["unconditional"].fitted_on == (NOTHING if kind == "none" else FITTED)
    assert ("conditional_whitened" in ways) == (kind != "pca")
    routes = small_cascade().router.route(blocks[0])
    assert torch.equal(ways["conditional"].features, small_cascade(kind).combination.combine(blocks, routes))


def test_whitened_features_have_variance_one_on_the_training_images_and_see_nothing_else() -> None:
    cascade, blocks = small_parts()
    ways = ways_of(cascade, blocks, NUM_TRAIN)
    others = [torch.cat([block[:NUM_TRAIN], torch.randn(20, block.shape[1])]) for block in blocks]
    elsewhere = ways_of(cascade, others, NUM_TRAIN)
    whitened = [name for name in ways if "whitened" in name]
    assert len(whitened) == 4
    for name in whitened:
        train = ways[name].features[:NUM_TRAIN]
        assert torch.allclose(train.mean(dim=0), torch.zeros(train.shape[1]), atol=1e-3)
        assert torch.allclose(train.std(dim=0, correction=0), torch.ones(train.shape[1]), atol=1e-3)
        assert torch.equal(train, elsewhere[name].features[:NUM_TRAIN])


def test_every_way_is_scored_and_the_cascades_own_is_held_against_the_base(
    labeled_folder: Path, backbone: Backbone, embedding: Embedding
) -> None:
    seen: list[int] = []
    split = load_labeled_split(labeled_folder)
    found = compare_cascade(
        backbone, small_cascade("random"), split, embedding, ScoringProtocol(ks=(5,)), progress=seen.append
    )
    content = found.to_json()
    assert content["adapted"]["knn"] == content["cascade"]["conditional"]["knn"]
    assert content["gain"]["knn.top1"]["value"] == pytest.approx(
        content["adapted"]["knn"]["top1"] - content["base"]["knn"]["top1"]
    )
    assert content["cascade"]["conditional"]["dim"] == 12
    assert seen == [54, 108, 162, 216]  # the third expert is the dispatcher


@pytest.mark.parametrize("kind", KINDS)
def test_costs_are_those_of_fitted_combinations(kind: str) -> None:
    _, blocks = small_parts()
    combination = small_cascade(kind).combination
    dim = None if kind == "none" else 12
    assert combination_bytes(len(blocks), blocks[0].shape[1], dim)[kind] == combination.num_bytes


def test_without_a_width_costs_are_those_of_the_backbones_own() -> None:
    assert combination_bytes(6, 1280) == {
        **combination_bytes(6, 1280, 1280),
        "whitened": combination_bytes(6, 1280, 256)["whitened"],
    }
    assert combination_bytes(6, 2048)["pca"] >= 6 * 2048 * 2048
