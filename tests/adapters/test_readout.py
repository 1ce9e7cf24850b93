"""A carried readout: rounded once, then the same bits for ever; files that lie about it are refused."""

import struct
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from smn_cli.adapters.adapter import Adapter, adapter_from_bytes
from smn_cli.adapters.readout import StoredReadout, store_readout
from smn_cli.errors import AdapterFileError, MismatchError
from smn_cli.evaluation.readouts import LinearReadout, fit_linear_readout
from smn_cli.schemas.readout_kinds import LINEAR_KINDS, LinearKind
from tests.adapters.forging import Parts, put_together, take_apart, toy_adapter, toy_base, toy_masks


def features(num_images: int = 48, num_features: int = 6) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    strength = torch.logspace(0, -1, num_features)
    return torch.randn(num_images, num_features, generator=generator) * strength + torch.linspace(1, 3, num_features)


def toy_readout(kind: LinearKind) -> StoredReadout:
    return store_readout(fit_linear_readout(features(), kind), kind, num_images=48)


def adapter_with(kind: LinearKind) -> Adapter:
    return toy_adapter(statistics=False).with_readout(toy_readout(kind))


HEADER, PARTS = take_apart(adapter_with("stages").to_bytes())
CENTRED_HEADER, CENTRED_PARTS = take_apart(adapter_with("centred").to_bytes())
TOLD = {"kind": "stages", "dim": 6, "features": 6, "images": 48, "bits": 8}


def refused(header: dict[str, Any], parts: Parts = PARTS) -> str:
    with pytest.raises(AdapterFileError) as error_info:
        adapter_from_bytes(put_together(header, parts), source="a.safetensors")
    assert str(error_info.value).isprintable()
    return str(error_info.value)


@pytest.mark.parametrize("kind", LINEAR_KINDS)
def test_the_file_gives_back_the_same_bits_and_the_same_numbers(kind: LinearKind) -> None:
    made = adapter_with(kind)
    data = made.to_bytes()
    read = adapter_from_bytes(data)
    assert read.to_bytes() == data
    assert made.readout is not None
    assert read.readout is not None
    assert read.readout.entry == made.readout.entry
    assert read.readout.digest == made.readout.digest
    new = torch.rand(7, 6)
    assert read.readout(new).numpy().tobytes() == made.readout(new).numpy().tobytes()


@pytest.mark.parametrize("kind", LINEAR_KINDS)
def test_its_numbers_are_those_of_the_format_page(kind: LinearKind) -> None:
    _, parts = take_apart(adapter_with(kind).to_bytes())
    stored = {name: np.frombuffer(data, {"F32": "f4", "F16": "f2", "I8": "i1"}[dtype]).reshape(shape)
              for name, (dtype, shape, data) in parts.items() if name.startswith("readout_")}  # fmt: skip
    x = features(5).numpy()
    if kind == "centred":
        expected = x - stored["readout_mean"].astype(np.float32)
    else:
        weight = stored["readout_levels"].astype(np.float32) * stored["readout_scales"][:, None]
        expected = x * stored.get("readout_inputs", np.float32(1)) @ weight.T + stored["readout_bias"]
    np.testing.assert_allclose(toy_readout(kind)(torch.from_numpy(x)).numpy(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["whitened", "stages"])
def test_weights_are_rounded_by_half_a_step_of_their_direction_and_the_mean_stays_at_zero(kind: LinearKind) -> None:
    fitted, stored = fit_linear_readout(features(), kind), toy_readout(kind)
    assert fitted.weight is not None
    weight = torch.from_numpy(stored.parts["levels"] * stored.parts["scales"][:, None])
    step = fitted.weight.abs().amax(dim=1, keepdim=True) / 127
    assert ((fitted.weight - weight).abs() <= step * 0.501).all()
    assert not torch.equal(fitted.weight.float(), weight)
    # of the rounded matrix, not of the one before it was rounded
    torch.testing.assert_close(stored(features()).mean(dim=0), torch.zeros(6), rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["centred", "whitened"])
def test_as_a_layer_it_gives_the_same_numbers(kind: LinearKind) -> None:
    weight, bias = toy_readout(kind).layer()
    x = features(9)
    torch.testing.assert_close(torch.nn.functional.linear(x, weight, bias), toy_readout(kind)(x), rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", LINEAR_KINDS)
def test_what_was_used_without_gradients_can_be_used_with_them(kind: LinearKind) -> None:
    readout = toy_readout(kind)
    rows = torch.randn(3, readout.num_features)
    with torch.inference_mode():
        first = readout(rows)
    rows_with_gradient = rows.clone().requires_grad_()
    second = readout(rows_with_gradient)
    torch.autograd.grad(second.sum(), rows_with_gradient)
    assert torch.equal(first, second)


def test_of_the_stages_it_is_no_layer() -> None:
    with pytest.raises(MismatchError, match="no layer over the last features"):
        toy_readout("stages").layer()


@pytest.mark.parametrize("shape", [(3, 5), (3, 7), (6,), (2, 3, 6)])
def test_features_of_another_width_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(MismatchError, match=r"takes \(N, 6\) features: found \("):
        toy_readout("whitened")(torch.zeros(shape))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e300])
def test_what_is_no_number_is_not_stored(value: float) -> None:
    mean, weight = torch.zeros(3, dtype=torch.float64), torch.ones(2, 3, dtype=torch.float64)
    bad = mean.clone()
    bad[1] = value
    for readout in (LinearReadout(bad), LinearReadout(bad, weight), LinearReadout(mean, weight * value)):
        with pytest.raises(ValueError, match="infinite, no numbers, or too large"):
            store_readout(readout, "centred" if readout.weight is None else "whitened", num_images=4)


def test_a_mean_above_what_sixteen_bits_hold_is_not_stored() -> None:
    with pytest.raises(ValueError, match="too large"):
        store_readout(LinearReadout(torch.full((2,), 7e4).double()), "centred", num_images=4)


def test_the_network_is_the_same_with_and_without_a_readout() -> None:
    plain, made = toy_adapter(statistics=False), adapter_with("whitened")
    assert made.header.adapted_digest == plain.header.adapted_digest
    rebuilt = made.rebuild(toy_base())
    assert all(torch.equal(tensor, rebuilt[name]) for name, tensor in plain.rebuild(toy_base()).items())
    assert made.with_readout(None).to_bytes() == plain.to_bytes()
    assert plain.readout is None
    assert plain.readout_bytes == 0


def test_a_reader_that_does_not_know_readouts_finds_the_rest_where_it_was() -> None:
    header = {key: value for key, value in HEADER.items() if key != "readout"}
    read = adapter_from_bytes(put_together(header, PARTS))  # the tensors are unknown ones now
    assert read.readout is None
    assert read.masks(toy_base()).keys() == toy_masks().keys()


def test_the_header_tells_kind_sizes_and_bits_and_sizes_add_up() -> None:
    assert HEADER["readout"] == TOLD
    assert CENTRED_HEADER["readout"] == {"kind": "centred", "dim": 6, "features": 6, "images": 48, "bits": 16}
    assert adapter_with("stages").readout_bytes == 6 * 6 + 3 * 6 * 4
    assert adapter_with("centred").readout_bytes == 6 * 2
    assert adapter_with("stages").readout_bytes == sum(len(PARTS[name][2]) for name in PARTS if "readout" in name)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "magic"}, "readout 'magic' is unknown to this smn: update smn-cli"),
        ({"kind": "x" * 400}, "is unknown to this smn"),
        ({"kind": 7}, "kind in the header is of type int: expected str"),
        ({"kind": ["centred"]}, "kind in the header is of type list"),
        ({"dim": 0}, "readout promises 0 numbers of 6 features"),
        ({"dim": -1}, "readout promises -1 numbers"),
        ({"dim": 7}, "readout promises 7 numbers of 6 features: no network has them"),
        ({"dim": 1 << 60, "features": 1 << 60}, "no network has them"),
        ({"dim": 100_001, "features": 100_001}, "no network has them"),
        ({"dim": 2.0}, "dim in the header is of type float"),
        ({"dim": True}, "dim in the header is of type bool"),
        ({"dim": 5}, "'readout_levels' is I8 [6, 6]: the readout is I8 [5, 6]"),
        ({"features": 7}, "'readout_levels' is I8 [6, 6]: the readout is I8 [6, 7]"),
        ({"images": 0}, "readout was fitted to 0 images: expected 1 or more"),
        ({"images": 1 << 50}, "expected 1 or more"),
        ({"bits": 16}, "readout is of 16 bits: expected 8 for stages"),
        ({"bits": 4}, "readout is of 4 bits"),
        ({"kind": "centred", "bits": 16}, "the tensor 'readout_mean' is missing"),
    ],
)
def test_a_readout_that_lies_is_refused_by_what_is_wrong(changes: dict[str, Any], message: str) -> None:
    assert message in refused({**HEADER, "readout": {**TOLD, **changes}})


@pytest.mark.parametrize("key", sorted(TOLD))
def test_every_field_of_it_has_to_be_there(key: str) -> None:
    assert f"the header lacks '{key}'" in refused({**HEADER, "readout": {k: v for k, v in TOLD.items() if k != key}})


@pytest.mark.parametrize("value", [None, [], "stages", 3])
def test_it_is_an_object(value: Any) -> None:
    assert "readout in the header is of type" in refused({**HEADER, "readout": value})


def test_a_centred_one_gives_as_many_numbers_as_it_takes() -> None:
    told = {**CENTRED_HEADER["readout"], "dim": 5}
    assert "5 numbers of 6 features, centred" in refused({**CENTRED_HEADER, "readout": told}, CENTRED_PARTS)


@pytest.mark.parametrize("name", ["readout_levels", "readout_scales", "readout_bias", "readout_inputs", "readout_mean"])
def test_its_tensors_are_there_and_of_their_type(name: str) -> None:
    header, parts = (CENTRED_HEADER, CENTRED_PARTS) if name == "readout_mean" else (HEADER, PARTS)
    lacking = {key: part for key, part in parts.items() if key != name}
    assert f"the tensor '{name}' is missing" in refused(header, lacking)
    dtype, shape, data = parts[name]
    other = {"I8": "U8", "F32": "I32", "F16": "U16"}[dtype]
    assert f"'{name}' is {other}" in refused(header, {**parts, name: (other, shape, data)})
    assert f"'{name}' is {dtype}" in refused(header, {**parts, name: (dtype, [*shape, 1], data)})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("readout_scales", float("nan")),
        ("readout_scales", float("inf")),
        ("readout_scales", -1.0),
        ("readout_scales", 3e38),  # finite, but 127 times it is not
        ("readout_bias", float("nan")),
        ("readout_bias", float("-inf")),
        ("readout_inputs", float("nan")),
        ("readout_inputs", float("inf")),
        ("readout_inputs", -0.5),
    ],
)
def test_its_numbers_are_finite_and_its_scales_not_negative(name: str, value: float) -> None:
    dtype, shape, data = PARTS[name]
    assert "its readout holds" in refused(HEADER, {**PARTS, name: (dtype, shape, struct.pack("<f", value) + data[4:])})


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_mean_is_finite(value: float) -> None:
    dtype, shape, data = CENTRED_PARTS["readout_mean"]
    parts = {**CENTRED_PARTS, "readout_mean": (dtype, shape, struct.pack("<e", value) + data[2:])}
    assert "its readout holds" in refused(CENTRED_HEADER, parts)


def test_a_signalling_nan_is_refused_without_a_warning() -> None:
    for name in ("readout_scales", "readout_bias", "readout_inputs"):
        dtype, shape, data = PARTS[name]
        assert "not finite" in refused(HEADER, {**PARTS, name: (dtype, shape, b"\x01\x00\x80\x7f" + data[4:])})


def test_a_level_below_minus_127_has_no_meaning() -> None:
    dtype, shape, data = PARTS["readout_levels"]
    assert "levels below -127" in refused(HEADER, {**PARTS, "readout_levels": (dtype, shape, b"\x80" + data[1:])})


def test_every_single_bit_flip_is_refused() -> None:
    data = adapter_with("whitened").to_bytes()
    for position in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[position // 8] ^= 1 << position % 8
        with pytest.raises(AdapterFileError, match="checksum does not match"):
            adapter_from_bytes(bytes(flipped))
