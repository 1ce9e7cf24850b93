"""What an adapter has put on a network comes off again: of it, of its copies, after moves and errors."""

import copy
import io
import pickle
from collections.abc import Callable
from contextlib import suppress
from typing import cast

import pytest
import torch
from torch import Tensor, nn

import smn_cli
from smn_cli.adapters.adapter import Adapter, make_adapter
from smn_cli.adapters.swap import TunedWeights, original_state
from smn_cli.errors import MismatchError
from tests.adapters.forging import random_masks
from tests.adapters.test_adapter import adapter_for, backbone, same, snapshot
from tests.conftest import CONVNET, RESNET, random_weights

pytestmark = pytest.mark.slow


def with_adapter() -> tuple[nn.Module, dict[str, Tensor], Adapter]:
    """A network with an adapter on it, what it was before, and the adapter, which changes statistics, too."""
    model = backbone(CONVNET)
    before, adapter = snapshot(model), adapter_for(model, statistics=True)
    adapter.apply(model)
    return model, before, adapter


def through_pickle(model: nn.Module) -> nn.Module:
    copied: nn.Module = pickle.loads(pickle.dumps(model))
    return copied


def through_torch_save(model: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    copied: nn.Module = torch.load(file, weights_only=False)
    return copied


@pytest.mark.parametrize("copied", [copy.deepcopy, through_pickle, through_torch_save])
def test_a_copy_is_adapted_and_finds_its_own_way_back(copied: Callable[[nn.Module], nn.Module]) -> None:
    model, before, adapter = with_adapter()
    adapted = snapshot(model)
    other = copied(model)
    assert same(snapshot(other), adapted)
    assert adapter.is_on(other)
    assert smn_cli.remove_adapter(other) is other
    assert same(snapshot(other), before)
    assert not adapter.is_on(other)
    assert same(snapshot(model), adapted)  # the first one keeps its adapter
    adapter.remove(model)
    assert same(snapshot(model), before)


def test_a_copy_takes_another_adapter_in_place_of_its_own() -> None:
    model, before, adapter = with_adapter()
    second = adapter_for(backbone(CONVNET), seed=5)
    other = copy.deepcopy(model)
    second.apply(other)
    assert same(snapshot(other), second.rebuild(before))
    assert same(snapshot(model), adapter.rebuild(before))


@pytest.mark.parametrize("copied", [copy.deepcopy, through_pickle, through_torch_save])
def test_an_adapter_put_on_under_inference_mode_can_be_copied_and_taken_off_outside(
    copied: Callable[[nn.Module], nn.Module],
) -> None:
    model = backbone(CONVNET)
    before, adapter, second = snapshot(model), adapter_for(model), adapter_for(model, seed=5)
    with torch.inference_mode():
        adapter.apply(model)
    other = copied(model)
    assert same(snapshot(smn_cli.remove_adapter(other)), before)
    with second.applied(model):
        assert same(snapshot(model), second.rebuild(before))
    model(torch.rand(2, 3, 32, 32)).sum().backward()  # still a network to train
    assert same(snapshot(smn_cli.remove_adapter(model)), before)


def test_names_of_state_modules_and_buffers_are_those_of_the_base() -> None:
    plain = backbone(CONVNET)
    model, _, _ = with_adapter()
    for listed in (model, copy.deepcopy(model)):
        assert list(listed.state_dict()) == list(plain.state_dict())
        assert [name for name, _ in listed.named_buffers()] == [name for name, _ in plain.named_buffers()]
        assert [name for name, _ in listed.named_modules()] == [name for name, _ in plain.named_modules()]


def test_after_a_conversion_the_way_back_leads_to_the_converted_base() -> None:
    model, before, adapter = with_adapter()
    halved = adapter.remove(model.half())
    assert same(snapshot(halved), snapshot(backbone(CONVNET).half()))
    model, before, adapter = with_adapter()
    smn_cli.remove_adapter(model.half().float())
    masked = {entry.name for entry in adapter.header.masks}
    after = snapshot(model)
    assert same({name: after[name] for name in masked}, {name: before[name] for name in masked})  # exact
    rounded = snapshot(backbone(CONVNET).half().float())
    others = before.keys() - masked - {name for name, _ in adapter.header.norm_stats}
    assert same({name: after[name] for name in others}, {name: rounded[name] for name in others})


def test_the_base_below_is_told_in_the_type_that_the_network_has_now() -> None:
    model, _, _ = with_adapter()
    assert same(dict(original_state(model.half())), snapshot(backbone(CONVNET).half()))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_after_a_move_to_another_device_the_way_back_is_exact() -> None:
    model, before, _ = with_adapter()
    smn_cli.remove_adapter(model.cuda())
    assert all(tensor.is_cuda for tensor in model.state_dict().values())
    assert same({name: tensor.cpu() for name, tensor in model.state_dict().items()}, before)


def test_in_a_block_the_adapter_is_on_and_then_the_base_is_back() -> None:
    model = backbone(CONVNET)
    before, adapter = snapshot(model), adapter_for(model, statistics=True)
    with adapter.applied(model) as given:
        assert given is model
        assert same(snapshot(model), adapter.rebuild(before))
    assert same(snapshot(model), before)
    with pytest.raises(KeyboardInterrupt), adapter.applied(model):
        raise KeyboardInterrupt
    assert same(snapshot(model), before)


def test_blocks_nest_over_each_other_and_over_an_adapter_that_was_on() -> None:
    model, before, outer = with_adapter()
    inner, innermost = adapter_for(backbone(CONVNET), seed=5), adapter_for(backbone(CONVNET), seed=6, statistics=True)
    with inner.applied(model):
        assert same(snapshot(model), inner.rebuild(before))
        with suppress(ZeroDivisionError), innermost.applied(model):
            assert same(snapshot(model), innermost.rebuild(before))
            raise ZeroDivisionError
        assert inner.is_on(model)
        assert same(snapshot(model), inner.rebuild(before))
        outer.remove(model)  # what happens inside ends with the block
    assert same(snapshot(model), outer.rebuild(before))
    assert outer.is_on(model)
    assert same(snapshot(outer.remove(model)), before)


def test_a_copy_made_in_a_block_goes_back_to_the_base() -> None:
    model, before, _ = with_adapter()
    with adapter_for(backbone(CONVNET), seed=5).applied(model):
        other = copy.deepcopy(model)
    assert same(snapshot(smn_cli.remove_adapter(other)), before)


def test_a_refused_block_leaves_the_adapter_that_was_on() -> None:
    model, before, adapter = with_adapter()
    weights = random_weights(RESNET)
    stranger = make_adapter(weights, random_masks(weights, density=0.9), arch=RESNET)
    with pytest.raises(MismatchError), stranger.applied(model):
        raise AssertionError("never reached")
    assert same(snapshot(model), adapter.rebuild(before))


def test_an_interrupted_switch_can_be_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    model, before, _ = with_adapter()
    second = adapter_for(backbone(CONVNET), seed=5)  # without statistics: those of the first have to come back
    written: list[Tensor] = []
    copy_ = Tensor.copy_

    def failing(self: Tensor, source: Tensor) -> Tensor:
        if len(written) == 3:
            monkeypatch.setattr(Tensor, "copy_", copy_)
            raise KeyboardInterrupt
        written.append(source)
        return copy_(self, source)

    monkeypatch.setattr(Tensor, "copy_", failing)
    with pytest.raises(KeyboardInterrupt):
        second.apply(model)
    assert len(written) == 3
    assert same(snapshot(smn_cli.remove_adapter(model)), before)


def test_the_network_in_a_wrapper_is_found() -> None:
    model = backbone(CONVNET)
    before, adapter = snapshot(model), adapter_for(model)
    images = torch.rand(2, 3, 32, 32)
    compiled = cast(nn.Module, torch.compile(model, backend="eager"))
    parallel = nn.DataParallel(model)
    with torch.inference_mode():
        features = compiled(images)
        for wrapped in (compiled, parallel):
            with adapter.applied(wrapped):
                assert same(snapshot(model), adapter.rebuild(before))
                assert torch.equal(compiled(images), model(images))
                assert not torch.equal(compiled(images), features)
            adapter.apply(wrapped)
            assert adapter.is_on(model)
            smn_cli.remove_adapter(wrapped)
            assert same(snapshot(model), before)
        assert torch.equal(compiled(images), features)


def test_the_adapter_of_a_network_inside_another_comes_off_with_it() -> None:
    model, before, _ = with_adapter()
    smn_cli.remove_adapter(nn.Sequential(model, nn.Linear(3, 2)))
    assert same(snapshot(model), before)


def test_a_classifier_that_was_replaced_meanwhile_is_left_alone() -> None:
    model = backbone(CONVNET, num_classes=1000)
    before = snapshot(model)
    TunedWeights({"classifier.weight": torch.ones_like(before["classifier.weight"])}).apply(model)
    model.reset_classifier(4)  # type: ignore[operator]
    weight = model.state_dict()["classifier.weight"].clone()
    smn_cli.remove_adapter(model)
    assert torch.equal(model.state_dict()["classifier.weight"], weight)
