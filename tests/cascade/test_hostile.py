"""Cascade files that are cut, altered or lie under a correct checksum end in one AdapterFileError."""

from contextlib import suppress
from typing import Any

import pytest
import torch

from smn_cli.adapters.adapter import adapter_from_bytes
from smn_cli.cascade import cascade as cascade_room
from smn_cli.cascade import combining as combining_room
from smn_cli.cascade.cascade import Cascade
from smn_cli.cascade.file import cascade_from_bytes
from smn_cli.errors import AdapterFileError
from tests.adapters.forging import Parts, put_together, sign, take_apart, toy_adapter, toy_base
from tests.cascade.small_cascades import toy_cascade

DATA = toy_cascade(statistics=True).to_bytes()
HEADER, PARTS = take_apart(DATA)


def use(data: bytes) -> Cascade:
    """Everything a file can be asked for."""
    cascade = cascade_from_bytes(data)
    features = torch.randn(4, cascade.router.num_features, generator=torch.Generator().manual_seed(0))
    for expert in cascade.experts:
        expert.rebuild(toy_base())
    cascade.combination.combine([features] * (len(cascade.experts) + 1), cascade.router.route(features))
    return cascade


def refused(data: bytes) -> str:
    with pytest.raises(AdapterFileError) as error_info:
        use(data)
    assert str(error_info.value).isprintable()
    return str(error_info.value)


def with_header(**changes: Any) -> bytes:
    return put_together({**HEADER, **changes}, PARTS)


def with_expert(**changes: Any) -> bytes:
    first, *others = HEADER["experts"]
    return with_header(experts=[{**first, **changes}, *others])


def test_a_file_put_together_again_is_the_same() -> None:
    assert put_together(HEADER, PARTS) == DATA
    assert use(DATA).to_bytes() == DATA


def test_truncated_files_are_refused() -> None:
    for length in [*range(60), *range(60, len(DATA), 97), len(DATA) - 1]:
        refused(DATA[:length])


def test_every_flipped_bit_is_found() -> None:
    for bit in range(0, 8 * len(DATA), 61):
        altered = bytearray(DATA)
        altered[bit // 8] ^= 1 << bit % 8
        assert "not a cascade, or was truncated or altered (its checksum" in refused(bytes(altered))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dispatcher", "experts", "router.axes", "router.centres", "combination.centre"])
def test_bits_flipped_under_a_new_checksum_give_no_fault(name: str) -> None:
    kind, shape, content = PARTS[name]
    for bit in range(0, 8 * len(content), 1 + 8 * len(content) // 40):
        altered = bytearray(content)
        altered[bit // 8] ^= 1 << bit % 8
        data = put_together(HEADER, {**PARTS, name: (kind, shape, bytes(altered))})
        if name == "dispatcher":
            refused(data)
            continue
        with suppress(AdapterFileError):
            use(data)  # a network that changed is refused by its digest


@pytest.mark.parametrize("name", sorted(PARTS))
def test_a_missing_tensor_is_named(name: str) -> None:
    assert f"lacks the tensor '{name}'" in refused(
        put_together(HEADER, {key: part for key, part in PARTS.items() if key != name})
    )


@pytest.mark.parametrize("name", sorted(PARTS))
def test_tensors_of_another_type_or_shape_are_refused(name: str) -> None:
    kind, shape, content = PARTS[name]
    size = len(content)
    changed: list[tuple[str, list[int], bytes]] = [("I16", [1], bytes(2)), (kind, [0], b"")]
    if kind != "U8":
        changed.append((kind, [1, *shape, 1], content))
        changed.append((kind, [2 * shape[0], *shape[1:]], content * 2))
    if kind in ("F32", "F16"):
        changed.append((kind, shape, b"\xff" * size))  # not a number
    for part in changed:
        assert name.partition(".")[0] in refused(put_together(HEADER, {**PARTS, name: part}))


HUGE = 1 << 31
FIRST = HEADER["experts"][0]["bytes"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "smn.adapter"}, "format 'smn.adapter': expected 'smn.cascade'"),
        ({"version": 2}, "cascade version 2: this smn reads version 1"),
        ({"version": True}, "version in the header is of type bool"),
        ({"mode": "sometimes"}, "mode 'sometimes' is unknown to this smn"),
        ({"mode": 3}, "mode in the header is of type int"),
        ({"router": {"kind": "dbscan"}}, "router 'dbscan' is unknown to this smn"),
        ({"router": {}}, "lacks 'kind'"),
        ({"combination": {"kind": "mean", "dim": 4, "seed": 0}}, "combination 'mean' is unknown to this smn"),
        ({"combination": {"kind": "none", "dim": 4, "seed": 0}}, "none has dim 4"),
        ({"combination": {"kind": "random", "dim": 25, "seed": 0}}, "random has dim 25 of 4 blocks of 6"),
        ({"combination": {"kind": "random", "dim": 5, "seed": 0}}, "expected F16 (5,)"),
        ({"combination": {"kind": "random", "dim": 0, "seed": 0}}, "has dim 0"),
        ({"combination": {"kind": "random", "dim": 4, "seed": -1}}, "seed in the header is -1"),
        ({"combination": {"kind": "random", "dim": HUGE, "seed": 0}}, f"has dim {HUGE}"),
        ({"combination": {"kind": "pca", "dim": 4, "seed": 0}}, "lacks the tensor 'combination.axes'"),
        ({"combination": {"kind": "blocks", "dim": 4, "seed": 0}}, "lacks the tensor 'combination.0.axes'"),
        ({"experts": []}, "lists 0 experts"),
        ({"experts": HEADER["experts"][1:]}, "not those that the header lists"),
        ({"experts": [*HEADER["experts"], 3]}, "experts[3] in the header is of type int"),
        ({"experts": [{}] * 5000}, "lists 5000 experts"),
        ({"provenance": 3}, "provenance in the header is of type int"),
    ],
)
def test_a_wrong_header_field_is_named(changes: dict[str, Any], message: str) -> None:
    assert message in refused(with_header(**changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"adapted": {"digest": "00"}}, "adapted.digest is not 64 hexadecimal digits"),
        ({"adapted": {"digest": "0" * 64}}, "the rebuilt network is not the recorded one"),
        ({"kept": [1]}, "an expert has 1 masks where its dispatcher has 2"),
        ({"kept": [0, 1]}, "an expert keeps 0 of 54 weights of conv.weight"),
        ({"kept": [55, 1]}, "an expert keeps 55 of 54 weights of conv.weight"),
        ({"kept": [54, 15]}, "the mask of conv.weight keeps"),
        ({"bytes": [1, 2]}, "bytes has 2 parts"),
        ({"bytes": [-1, 2, 3]}, "bytes in the header is -1"),
        ({"bytes": [HUGE, 2, 3]}, "not those that the header lists"),
        ({"bytes": [sum(FIRST), 0, 0]}, "the mask does not end where it should"),
        ({"bytes": [FIRST[0] - 4, FIRST[1], FIRST[2] + 4]}, "an expert's statistics is not valid xz data"),
    ],
)
def test_a_wrong_expert_is_refused(changes: dict[str, Any], message: str) -> None:
    assert message in refused(with_expert(**changes))


def test_a_small_file_does_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    num_values = adapter_from_bytes(PARTS["dispatcher"][2]).stored_statistics.size
    num_coded = sum(expert["bytes"][2] > 0 for expert in HEADER["experts"])
    monkeypatch.setattr(cascade_room, "MAX_STATISTICS", num_coded * num_values)
    assert use(DATA).to_bytes() == DATA
    monkeypatch.setattr(cascade_room, "MAX_STATISTICS", num_coded * num_values - 1)
    assert f"experts with {num_coded * num_values} statistics in all" in refused(DATA)
    monkeypatch.undo()
    monkeypatch.setattr(combining_room, "MAX_SIGNS", 4 * 6 - 1)
    assert "dim 4 of 6 features needs more than 23 signs" in refused(DATA)


def test_keys_and_tensors_that_are_unknown_are_left_aside() -> None:
    more: Parts = {"a": ("F32", [1], bytes(4)), **PARTS}
    header = {**HEADER, "later": {"x": [1]}}
    assert use(put_together(header, more)).to_bytes() == DATA


def test_a_reader_of_adapters_says_that_it_is_a_cascade() -> None:
    with pytest.raises(AdapterFileError, match="it is a cascade: expected an adapter"):
        adapter_from_bytes(DATA)
    assert "it is an adapter: expected a cascade" in refused(toy_adapter().to_bytes())


def test_a_dispatcher_that_is_no_adapter_is_refused() -> None:
    for content in (b"", b"no", DATA, sign(bytes(100))):
        message = refused(put_together(HEADER, {**PARTS, "dispatcher": ("U8", [len(content)], content)}))
        assert "its dispatcher cannot be used" in message


def test_a_header_of_very_many_counts_is_refused_before_any_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    num_counts = sum(len(expert["kept"]) for expert in HEADER["experts"])
    use(with_header())
    monkeypatch.setattr("smn_cli.cascade.schema._MAX_COUNTS", num_counts - 1)
    assert f"counts {num_counts} masks of all experts: expected at most {num_counts - 1}" in refused(with_header())
