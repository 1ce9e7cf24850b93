"""A tensor under several names is one tensor: masked once, the same everywhere, and left alone."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from smn_cli.adapters.adapter import make_adapter
from smn_cli.config.options import AdaptOptions
from smn_cli.errors import AdapterFileError
from smn_cli.masking.backbone import MaskedBackbone, parameters_replaced, run_backbone
from smn_cli.masking.maskable import maskable_names
from smn_cli.masking.ties import tied_names, under_all_names, under_first_names
from smn_cli.training.mask_setup import names_to_train
from smn_cli.training.planning import make_plan
from tests.small_runs import digests, equal


class SharesModule(nn.Module):
    """One layer, whole, in two blocks, as in CoaT."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Conv2d(3, 3, 3, padding=1)
        self.blocks = nn.ModuleList([nn.Sequential(self.shared, nn.Conv2d(3, 3, 1)) for _ in range(2)])
        self.feature_info = [{"module": "blocks.0"}, {"module": "blocks.1"}]

    def forward(self, images: Tensor) -> Tensor:
        for block in self.blocks:
            images = block(images).tanh()
        return images.mean((2, 3))


class SharesWeight(nn.Module):
    """Two layers that hold one weight, with a bias each."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 3, 3, padding=1)
        self.second = nn.Conv2d(3, 3, 3, padding=1)
        self.second.weight = self.first.weight

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.second(self.first(images).tanh())
        return features.mean((2, 3))


Build = Callable[[], nn.Module]
NETWORKS: dict[Build, str] = {SharesModule: "shared.weight", SharesWeight: "first.weight"}


def images() -> Tensor:
    return torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(3))


def mask_of(network: nn.Module, name: str) -> dict[str, Tensor]:
    shape = network.get_parameter(name).shape
    return {name: torch.rand(shape, generator=torch.Generator().manual_seed(4)) > 0.3}


def masked(network: nn.Module, masks: dict[str, Tensor]) -> MaskedBackbone:
    return MaskedBackbone(network, {name: mask.float() for name, mask in masks.items()}, 0.5)


@torch.no_grad()
def with_weights(build: Build, network: nn.Module, weights: dict[str, Tensor]) -> Tensor:
    """Features of a network of its own in whose parameters the weights were written."""
    other = build()
    other.load_state_dict(network.state_dict())
    for name, weight in weights.items():
        other.get_parameter(name).copy_(weight)
    features: Tensor = other(images())
    return features


def test_names_are_listed_under_the_first_and_spread_over_all() -> None:
    shared = {f"{place}.{part}" for place in ("shared", "blocks.0.0", "blocks.1.0") for part in ("weight", "bias")}
    network = SharesModule()
    tied = tied_names(network)
    assert tied.keys() == {"shared.weight", "shared.bias"}
    assert {name for names in tied.values() for name in names} == shared
    assert tied_names(SharesWeight()) == {"first.weight": ("first.weight", "second.weight")}
    assert tied_names(nn.Linear(2, 2)) == {}
    known = {"shared.weight": 1, "blocks.0.1.weight": 2}
    spread = under_all_names(known, network)
    assert spread == {"shared.weight": 1, "blocks.0.0.weight": 1, "blocks.1.0.weight": 1, "blocks.0.1.weight": 2}
    assert under_first_names(spread, network) == known


@pytest.mark.parametrize("build", list(NETWORKS))
def test_an_effective_weight_is_used_in_every_place_and_stays_in_none(build: Build) -> None:
    network = build()
    before, own = digests(network), dict(network.named_parameters())
    weights = masked(network, mask_of(network, NETWORKS[build])).final_weights()
    features = run_backbone(network, images(), weights)
    assert torch.equal(features, with_weights(build, network, weights))
    assert not torch.equal(features, network(images()))
    with parameters_replaced(network, weights):
        assert torch.equal(network(images()), features)
    assert digests(network) == before
    assert all(parameter is own[name] for name, parameter in network.named_parameters())


@pytest.mark.parametrize("build", list(NETWORKS))
def test_gradients_of_all_places_reach_the_one_score(build: Build) -> None:
    network = build()
    name = NETWORKS[build]
    source = masked(network, {name: torch.ones_like(network.get_parameter(name), dtype=torch.bool)})
    run_backbone(network, images(), source.effective_weights()).sum().backward()  # type: ignore[no-untyped-call]
    found = source.effective_weights()[name].grad
    network.requires_grad_(True)
    network(images()).sum().backward()
    assert found is not None
    torch.testing.assert_close(found, network.get_parameter(name).grad)


@pytest.mark.parametrize("build", list(NETWORKS))
def test_an_adapter_of_all_names_goes_on_and_off(build: Build) -> None:
    network = build()
    before, masks = digests(network), mask_of(network, NETWORKS[build])
    live = run_backbone(network, images(), masked(network, masks).final_weights())
    adapter = make_adapter(network.state_dict(), under_all_names(masks, network), arch="toy")
    loaded = build()
    loaded.load_state_dict(adapter.rebuild(network.state_dict()))
    assert torch.equal(loaded(images()), live)
    assert torch.equal(adapter.apply(network)(images()), live)
    assert digests(adapter.apply(network)) == digests(loaded)
    assert digests(adapter.remove(network)) == before


@pytest.mark.parametrize("build", list(NETWORKS))
def test_an_adapter_that_masks_one_name_of_a_tensor_is_refused(build: Build) -> None:
    network = build()
    adapter = make_adapter(network.state_dict(), mask_of(network, NETWORKS[build]), arch="toy")
    with pytest.raises(AdapterFileError, match=f"masks {NETWORKS[build]} unlike .*pack its run again"):
        adapter.rebuild(network.state_dict())
    before = digests(network)
    with pytest.raises(AdapterFileError):
        adapter.apply(network)
    assert digests(network) == before


def test_a_pattern_that_fits_one_name_fits_the_tensor() -> None:
    def names(*specs: str) -> list[str]:
        return names_to_train(SharesModule(), make_plan(AdaptOptions(recipe="paper", mask_only=specs), 1000))

    own = ["blocks.0.1.weight", "blocks.1.1.weight"]
    assert names() == ["shared.weight", *own]
    assert names("name:blocks.1.0.*") == ["shared.weight", "shared.bias"]
    assert names("all-but:blocks.1.0.*") == own
    # what stands outside, too, is not the first blocks' own
    assert names("blocks:1") == own[:1]
    also = maskable_names(SharesModule(), include_depthwise=True, include_stem=True, also=("blocks.1.0.bias",))
    assert also == ["shared.weight", *own, "shared.bias"]


def test_statistics_of_a_shared_layer_go_into_every_place() -> None:
    network = nn.ModuleDict({"a": nn.BatchNorm2d(3), "b": nn.BatchNorm2d(3)})
    network["b"] = network["a"]
    spread = under_all_names({"a.running_mean": torch.ones(3)}, network)
    assert equal(spread, {"a.running_mean": torch.ones(3), "b.running_mean": torch.ones(3)})
