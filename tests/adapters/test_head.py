"""A carried classifier: rounded once, then the same bits for ever; files that lie about it are refused."""

import copy
import struct
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from smn_cli.adapters.adapter import Adapter, adapter_from_bytes, make_adapter
from smn_cli.adapters.head import StoredHead, store_head
from smn_cli.errors import AdapterFileError
from smn_cli.evaluation.classifier import LinearClassifier
from tests.adapters.forging import Parts, put_together, take_apart, toy_adapter, toy_base, toy_masks

CLASSES = ("ant", "bee", "cat 🐈")


def classifier(seed: int = 0) -> LinearClassifier:
    generator = torch.Generator().manual_seed(seed)
    return LinearClassifier(torch.randn(3, 5, generator=generator), torch.randn(3, generator=generator))


def toy_head() -> StoredHead:
    return store_head(classifier(), name="top.fc", classes=CLASSES)


def adapter_with_head() -> Adapter:
    return make_adapter(toy_base(), toy_masks(), arch="toy", tag="made_up", codec="bits", head=toy_head())


HEADER, PARTS = take_apart(adapter_with_head().to_bytes())


def refused(header: dict[str, Any], parts: Parts = PARTS) -> str:
    with pytest.raises(AdapterFileError) as error_info:
        adapter_from_bytes(put_together(header, parts), source="a.safetensors")
    assert str(error_info.value).isprintable()
    return str(error_info.value)


def test_weights_are_rounded_by_half_a_step_of_their_class_at_most() -> None:
    own, found = classifier(), toy_head().classifier()
    step = own.weight.abs().amax(dim=1, keepdim=True) / 127
    assert ((own.weight - found.weight).abs() <= step * 0.501).all()
    assert torch.equal(own.bias, found.bias)
    assert not torch.equal(own.weight, found.weight)
    assert (toy_head().levels.max(axis=1).clip(0) | -toy_head().levels.min(axis=1)).max() == 127


def test_a_class_without_weights_stays_one() -> None:
    found = store_head(LinearClassifier(torch.zeros(2, 4), torch.ones(2)), name="fc", classes=("a", "b"))
    assert not found.classifier().weight.any()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_number_is_not_stored(value: float) -> None:
    for weight, bias in ((torch.full((2, 3), value), torch.zeros(2)), (torch.zeros(2, 3), torch.full((2,), value))):
        with pytest.raises(ValueError, match="not all finite"):
            store_head(LinearClassifier(weight, bias), name="fc", classes=("a", "b"))


def test_the_file_gives_back_the_same_bits() -> None:
    data = adapter_with_head().to_bytes()
    read = adapter_from_bytes(data)
    assert read.to_bytes() == data
    assert read.head is not None
    assert (read.head.name, read.head.classes) == ("top.fc", CLASSES)
    assert torch.equal(read.head.classifier().weight, toy_head().classifier().weight)
    assert torch.equal(read.head.classifier().bias, toy_head().classifier().bias)
    assert read.head_bytes == 3 * 5 + 3 * 4 + 3 * 4
    assert put_together(HEADER, PARTS) == data


def test_the_backbone_is_the_same_with_and_without_a_head() -> None:
    with_head, without = adapter_with_head(), toy_adapter(statistics=False)
    assert with_head.header.adapted_digest == without.header.adapted_digest
    rebuilt = with_head.rebuild(toy_base())
    assert all(torch.equal(tensor, rebuilt[name]) for name, tensor in without.rebuild(toy_base()).items())


def test_a_reader_that_does_not_know_heads_finds_the_rest_where_it_was() -> None:
    header = {key: value for key, value in HEADER.items() if key != "head"}
    read = adapter_from_bytes(put_together(header, PARTS))  # the tensors are unknown ones now
    assert read.head is None
    assert read.masks(toy_base()).keys() == toy_masks().keys()


class Toy(nn.Module):
    """A network whose state dict is that of `toy_base`, with a classifier of some classes."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 3, bias=False)
        self.norm = nn.BatchNorm1d(3, affine=False)
        self.fc = nn.Linear(3, 5, bias=False)
        self.top = nn.ModuleDict({"fc": nn.Linear(5, num_classes)})
        self.load_state_dict(toy_base(), strict=False)


def top_weight(network: Toy) -> torch.Tensor:
    weight: torch.Tensor = network.state_dict()["top.fc.weight"]
    return weight.clone()


def test_applying_puts_the_head_on_a_network_of_as_many_classes_and_takes_it_off_again() -> None:
    network, adapter = Toy(3), adapter_with_head()
    before = copy.deepcopy(network.state_dict())
    adapter.apply(network)
    assert torch.equal(top_weight(network), toy_head().classifier().weight)
    assert not torch.equal(network.conv.weight, before["conv.weight"])
    adapter.remove(network)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    other = Toy(1000)
    weight = top_weight(other)
    adapter.apply(other)
    assert torch.equal(top_weight(other), weight)
    assert not torch.equal(other.conv.weight, before["conv.weight"])


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ({}, "head in the header is of type dict: expected list"),
        ([], "head has 0 parts: expected name"),
        (["top.fc", 5], "head has 2 parts"),
        (["", 5, ["a", "b", "c"]], "head holds no usable name"),
        (["a\nb", 5, ["a", "b", "c"]], "head holds no usable name"),
        ([7, 5, ["a", "b", "c"]], "head in the header is of type int"),
        (["top.fc", True, ["a", "b", "c"]], "head in the header is of type bool"),
        (["top.fc", 5.0, ["a", "b", "c"]], "head in the header is of type float"),
        (["top.fc", 0, ["a", "b", "c"]], "head promises 0 features"),
        (["top.fc", -5, ["a", "b", "c"]], "head promises -5 features"),
        (["top.fc", 1 << 60, ["a", "b", "c"]], "no network has them"),
        (["top.fc", 5, "abc"], "head in the header is of type str: expected list"),
        (["top.fc", 5, ["a"]], "head has 1 classes: expected between 2"),
        (["top.fc", 5, ["a", "b", "a"]], "a class of its head twice"),
        (["top.fc", 5, ["a", "", "c"]], "head class 1 holds no usable name"),
        (["top.fc", 5, ["a", "\u202e", "c"]], "head class 1 holds no usable name"),
        (["top.fc", 5, ["a", "b", "z" * 513]], "head class 2 holds no usable name"),
        (["top.fc", 5, ["a", 1, "c"]], "head class 1 in the header is of type int"),
        (["top.fc", 4, ["a", "b", "c"]], "'head_levels' is I8 [3, 5]: the head is I8 [3, 4]"),
        (["top.fc", 5, ["a", "b"]], "'head_levels' is I8 [3, 5]: the head is I8 [2, 5]"),
        (["fc", 5, ["a", "b", "c"]], "in the place of fc.weight, which is part of its base"),
    ],
)
def test_a_head_that_lies_is_refused_by_what_is_wrong(head: Any, message: str) -> None:
    assert message in refused({**HEADER, "head": head})


@pytest.mark.parametrize("name", ["head_levels", "head_scales", "head_bias"])
def test_its_tensors_are_there_and_of_their_type(name: str) -> None:
    lacking = {key: part for key, part in PARTS.items() if key != name}
    assert f"the tensor '{name}' is missing" in refused(HEADER, lacking)
    dtype, shape, data = PARTS[name]
    other = "U8" if dtype == "I8" else "I32"
    assert f"'{name}' is {other}" in refused(HEADER, {**PARTS, name: (other, shape, data)})
    assert f"'{name}' is {dtype}" in refused(HEADER, {**PARTS, name: (dtype, [*shape, 1], data)})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("head_scales", float("nan")),
        ("head_scales", float("inf")),
        ("head_scales", -1.0),
        ("head_scales", 3e38),  # finite, but 127 times it is not
        ("head_bias", float("nan")),
        ("head_bias", float("-inf")),
    ],
)
def test_its_numbers_are_finite_and_its_scales_not_negative(name: str, value: float) -> None:
    dtype, shape, data = PARTS[name]
    assert "not finite" in refused(HEADER, {**PARTS, name: (dtype, shape, struct.pack("<f", value) + data[4:])})


def test_a_signalling_nan_is_refused_without_a_warning() -> None:
    dtype, shape, data = PARTS["head_scales"]
    assert "not finite" in refused(HEADER, {**PARTS, "head_scales": (dtype, shape, b"\x01\x00\x80\x7f" + data[4:])})


def test_a_level_below_minus_127_has_no_meaning() -> None:
    dtype, shape, data = PARTS["head_levels"]
    assert "levels below -127" in refused(HEADER, {**PARTS, "head_levels": (dtype, shape, b"\x80" + data[1:])})


def test_sizes_add_up() -> None:
    assert toy_head().nbytes == sum(len(PARTS[name][2]) for name in ("head_levels", "head_scales", "head_bias"))
    assert np.array_equal(toy_head().levels, np.frombuffer(PARTS["head_levels"][2], dtype=np.int8).reshape(3, 5))
