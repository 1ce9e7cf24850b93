"""The fingerprint sees every value, name, shape and type, and nothing else; a mismatch is named."""

import hashlib
import struct

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from smn_cli.adapters.adapter import Adapter, make_adapter
from smn_cli.adapters.fingerprint import check_base, fingerprint, select_base, tensor_digest
from smn_cli.errors import MismatchError
from tests.adapters.forging import random_masks, toy_adapter, toy_base
from tests.conftest import CONVNET, RESNET, random_weights


def adapter_of(base: dict[str, Tensor]) -> Adapter:
    return make_adapter(base, random_masks(base, density=0.9), arch=CONVNET, tag="in1k")


def test_a_tensor_digest_is_sha256_of_name_type_shape_and_little_endian_values() -> None:
    tensor = torch.tensor([[1.0, -2.5, 0.0], [3.0, 1e-20, 7.0]])
    written_out = b"fc.weight\0float32\x002x3\0" + struct.pack("<6f", 1.0, -2.5, 0.0, 3.0, 1e-20, 7.0)
    assert tensor_digest("fc.weight", tensor) == hashlib.sha256(written_out).digest()
    scalar = b"steps\0int64\0\0" + struct.pack("<q", 258)
    assert tensor_digest("steps", torch.tensor(258)) == hashlib.sha256(scalar).digest()


def test_the_whole_is_sha256_of_the_digests_by_sorted_name() -> None:
    state = {"b": torch.tensor([1.0]), "a.c": torch.tensor([2], dtype=torch.int16), "a": torch.tensor([True])}
    digests = [
        hashlib.sha256(b"a\0bool\x001\0\x01").digest(),
        hashlib.sha256(b"a.c\0int16\x001\0\x02\x00").digest(),
        hashlib.sha256(b"b\0float32\x001\0\x00\x00\x80\x3f").digest(),
    ]
    found = fingerprint(state)
    assert found.digest == hashlib.sha256(b"".join(digests)).hexdigest()
    names = [hashlib.sha256(name).digest() for name in (b"a", b"a.c", b"b")]
    assert found.rows.tobytes() == b"".join(name[:3] + digest[:1] for name, digest in zip(names, digests, strict=True))


def test_order_layout_strides_and_counters_do_not_matter() -> None:
    state = random_weights(CONVNET)
    expected = fingerprint(state)
    reverse = dict(reversed(state.items()))
    channels_last = {
        name: tensor.contiguous(memory_format=torch.channels_last) if tensor.dim() == 4 else tensor
        for name, tensor in state.items()
    }
    strided = {name: torch.stack([tensor, tensor + 1], -1)[..., 0] for name, tensor in state.items()}
    counted = {name: tensor + 5 if name.endswith("num_batches_tracked") else tensor for name, tensor in state.items()}
    uncounted = {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}
    parameters = {
        name: torch.nn.Parameter(tensor) if tensor.is_floating_point() else tensor for name, tensor in state.items()
    }
    assert any(not tensor.is_contiguous() for tensor in channels_last.values())
    assert any(not tensor.is_contiguous() for tensor in strided.values())
    for other in (reverse, channels_last, strided, counted, uncounted, parameters):
        assert fingerprint(other).digest == expected.digest
        assert fingerprint(other).rows.tobytes() == expected.rows.tobytes()


def test_every_single_value_matters() -> None:
    state = toy_base()
    seen = {fingerprint(state).digest}
    num_values = 0
    for name in ("conv.weight", "norm.running_mean", "norm.running_var", "fc.weight"):
        for position in range(state[name].numel()):
            changed = state[name].clone()
            bits = changed.view(torch.int32).view(-1)
            bits[position] ^= 1  # the lowest bit of one float
            seen.add(fingerprint({**state, name: changed}).digest)
            num_values += 1
    assert len(seen) == num_values + 1 == 76


def test_name_shape_type_and_presence_matter() -> None:
    state = toy_base()
    weight = state["fc.weight"]
    rest = {name: tensor for name, tensor in state.items() if name != "fc.weight"}
    variants = [
        rest,
        {**rest, "fc.weights": weight},
        {**rest, "fc_weight": weight},
        {**rest, "fc.weight": weight.reshape(3, 5)},
        {**rest, "fc.weight": weight.reshape(15)},
        {**rest, "fc.weight": weight.reshape(5, 3, 1)},
        {**rest, "fc.weight": weight.view(torch.int32)},
        {**rest, "fc.weight": weight.double()},
        {**rest, "fc.weight": weight.half()},
        {**rest, "fc.weight": weight.bfloat16()},
        {**state, "more": torch.zeros(0)},
        {**state, "norm.running_mean": state["norm.running_var"], "norm.running_var": state["norm.running_mean"]},
    ]
    assert len({fingerprint(each).digest for each in [state, *variants]}) == len(variants) + 1


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.text(min_size=1, max_size=8), st.lists(st.floats(width=32), max_size=5), max_size=5))
def test_any_state_dict_has_one_row_a_tensor_and_an_order_free_digest(values: dict[str, list[float]]) -> None:
    state = {name: torch.tensor(numbers, dtype=torch.float32) for name, numbers in values.items()}
    found = fingerprint(state)
    assert found.rows.shape == (sum(not name.endswith("num_batches_tracked") for name in state), 4)
    assert fingerprint(dict(reversed(state.items()))).digest == found.digest


def test_what_the_base_does_not_have_is_left_aside() -> None:
    state = toy_base()
    expected = fingerprint(state)
    more = {**state, "classifier.weight": torch.ones(2, 5), "classifier.bias": torch.ones(2)}
    assert select_base(more, expected).keys() == state.keys() - {"norm.num_batches_tracked"}
    check_base(more, expected, made_for="toy")


def refusal(adapter: Adapter, base: dict[str, Tensor]) -> str:
    with pytest.raises(MismatchError) as error_info:
        adapter.rebuild(base)
    message = str(error_info.value)
    assert "\n" not in message
    return message


def test_one_changed_weight_is_named() -> None:
    base = random_weights(CONVNET)
    adapter = adapter_of(base)
    name = "blocks.1.0.conv_exp.weight"
    base[name].view(-1)[17] += 1e-6
    message = refusal(adapter, base)
    assert (
        f"1 of {sum(not key.endswith('num_batches_tracked') for key in base)} tensors differ, first {name}" in message
    )
    assert str(tuple(base[name].shape)) in message
    assert "a single tensor differs: the file was edited" in message
    assert "made for other weights of test_efficientnet.in1k" in message


def test_changed_running_statistics_are_told_apart() -> None:
    base = random_weights(CONVNET)
    adapter = adapter_of(base)
    first = next(name for name in sorted(base) if name.endswith("running_mean"))
    for name, tensor in base.items():
        if name.endswith(("running_mean", "running_var")):
            tensor.mul_(1.01)
    message = refusal(adapter, base)
    assert f"first {first} " in message
    assert "only normalisation statistics differ: the base ran in training mode" in message


@pytest.mark.slow
@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("back", [True, False])
def test_half_precision_is_told(half: torch.dtype, back: bool) -> None:
    base = random_weights(RESNET)
    adapter = adapter_of(base)
    rounded = {name: tensor.to(half) if tensor.is_floating_point() else tensor for name, tensor in base.items()}
    if back:
        rounded = {name: tensor.to(base[name].dtype) for name, tensor in rounded.items()}
    assert "went through half precision: take the float32 file" in refusal(adapter, rounded)


def test_other_weights_of_the_same_network_ask_for_the_tag() -> None:
    message = refusal(adapter_of(random_weights(CONVNET)), random_weights(CONVNET, seed=5))
    assert "first blocks.0.0.bn1.running_mean (" in message
    assert "take the same timm tag or weights file" in message


def test_a_missing_tensor_is_named() -> None:
    base = toy_base()
    del base["fc.weight"]
    message = refusal(toy_adapter(), base)
    assert "made for toy.made_up with 4 tensors, this base lacks 1 of them (fc.weight)" in message


def test_a_missing_tensor_and_a_changed_one_are_both_named() -> None:
    base = toy_base()
    del base["norm.running_var"]
    base["conv.weight"][0, 0, 0, 0] = 3
    assert "lacks 1 of them (norm.running_var), and conv.weight differs" in refusal(toy_adapter(), base)


def test_another_architecture_is_told() -> None:
    base = random_weights(RESNET)
    adapter = adapter_of(random_weights(CONVNET))
    message = refusal(adapter, base)
    assert "it is another architecture or another version of it" in message
    assert "blocks.0.0.conv.weight" in message
    resnet = timm.create_model(RESNET, pretrained=False)
    with pytest.raises(MismatchError, match="another architecture"):
        adapter.apply(resnet)
