"""Several adapters over one network: switched by name, decoded once, each thread with its own."""

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from smn_cli import AdapterSet
from smn_cli.adapters.adapter import Adapter, make_adapter
from smn_cli.adapters.codecs import CODECS, Codec
from smn_cli.errors import MismatchError, UsageError
from tests.adapters.forging import random_masks
from tests.adapters.test_adapter import adapter_for, backbone, same, snapshot
from tests.conftest import CONVNET, RESNET, random_weights

pytestmark = pytest.mark.slow


def two() -> tuple[Adapter, Adapter]:
    """Of one base; the first carries statistics."""
    return adapter_for(backbone(CONVNET), seed=1, statistics=True), adapter_for(backbone(CONVNET), seed=2)


def test_adapters_are_switched_by_name_in_place_and_taken_off(tmp_path: Path) -> None:
    model = backbone(CONVNET)
    before, (first, second) = snapshot(model), two()
    second.save(tmp_path / "second.safetensors")
    adapters = AdapterSet(model)
    adapters.add("first", first)
    adapters.add("second", tmp_path / "second.safetensors")
    assert (adapters.names, adapters.active) == (("first", "second"), None)
    assert same(snapshot(model), before)
    for name, adapter in (("first", first), ("second", second), ("first", first)):
        assert adapters.use(name) is model
        assert adapters.active == name
        assert same(snapshot(model), adapter.rebuild(before))
    assert adapters.off() is model
    assert adapters.active is None
    assert same(snapshot(model), before)


def test_blocks_of_a_set_nest_and_the_set_itself_ends_with_the_base() -> None:
    model = backbone(CONVNET)
    before, (first, second) = snapshot(model), two()
    with suppress(ZeroDivisionError), AdapterSet(model) as adapters:
        adapters.add("first", first)
        adapters.add("second", second)
        adapters.use("first")
        with adapters.using("second") as given:
            assert given is model
            assert adapters.active == "second"
            assert same(snapshot(model), second.rebuild(before))
        assert adapters.active == "first"
        assert same(snapshot(model), first.rebuild(before))
        raise ZeroDivisionError
    assert same(snapshot(model), before)


def test_what_is_active_is_what_is_on_the_network_however_it_came_there() -> None:
    model = backbone(CONVNET)
    first, second = two()
    adapters = AdapterSet(model)
    adapters.add("first", first)
    second.apply(model)
    assert adapters.active is None  # it is not in the set
    first.apply(model)
    assert adapters.active == "first"
    adapters.add("the same", first)
    adapters.use("the same")
    assert adapters.active == "the same"
    first.remove(model)
    assert adapters.active is None


def test_every_adapter_is_decoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model, (first, second) = backbone(CONVNET), two()
    decoded: list[int] = []
    for name, codec in list(CODECS.items()):

        def counting(payload: bytes, num_bits: int, base: list[object], codec: Codec = codec) -> object:
            decoded.append(num_bits)
            return codec.decode(payload, num_bits, base)  # type: ignore[arg-type]

        monkeypatch.setitem(CODECS, name, Codec(codec.name, codec.encode, counting, codec.needs_base))  # type: ignore[arg-type]
    adapters = AdapterSet(model)
    adapters.add("first", first)
    adapters.add("second", second)
    assert len(decoded) == 2
    for name in ("first", "second", "first"):
        adapters.use(name)
    assert len(decoded) == 2


def test_what_does_not_fit_is_refused_and_changes_nothing() -> None:
    model = backbone(CONVNET)
    first, _ = two()
    weights = random_weights(RESNET)
    adapters = AdapterSet(model)
    adapters.add("first", first)
    adapters.use("first")
    on = snapshot(model)
    with pytest.raises(MismatchError):
        adapters.add("stranger", make_adapter(weights, random_masks(weights, density=0.9), arch=RESNET))
    with pytest.raises(UsageError, match="`name` 'first' is taken"):
        adapters.add("first", first)
    with pytest.raises(UsageError, match="`name` 'frist' is not in the set: it has 'first'"):
        adapters.use("frist")
    assert adapters.names == ("first",)
    assert same(snapshot(model), on)


def test_a_copied_or_pickled_set_switches_its_own_network() -> None:
    model = backbone(CONVNET)
    before, (first, second) = snapshot(model), two()
    adapters = AdapterSet(model)
    adapters.add("first", first)
    adapters.add("second", second)
    adapters.use("first")
    for other in (copy.deepcopy(adapters), pickle.loads(pickle.dumps(adapters))):
        assert other.active == "first"
        with other.using("second"):
            assert same(snapshot(other.model), second.rebuild(before))
        assert same(snapshot(other.off()), before)
        assert same(snapshot(model), first.rebuild(before))


def test_threads_that_use_blocks_get_the_features_of_the_adapter_they_asked_for() -> None:
    model, (first, second) = backbone(CONVNET), two()
    images = torch.rand(2, 3, 32, 32)
    adapters = AdapterSet(model)
    expected = {}
    with torch.inference_mode():
        for name, adapter in (("first", first), ("second", second)):
            adapters.add(name, adapter)
            with adapter.applied(model):
                expected[name] = model(images)

    @torch.inference_mode()
    def run(name: str) -> bool:
        with adapters.using(name):
            return torch.equal(model(images), expected[name])

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(run, ["first", "second"] * 20))
    assert adapters.active is None


def test_a_set_tells_what_is_in_it() -> None:
    adapters = AdapterSet(backbone(CONVNET))
    adapters.add("first", two()[0])
    assert repr(adapters) == f"AdapterSet({{'first': {two()[0]!r}}}, active=None)"
