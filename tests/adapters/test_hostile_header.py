"""Headers that lie under a correct checksum: every field wrong in every way, refused by its name."""

import copy
import json
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from smn_cli.adapters.adapter import Adapter, adapter_from_bytes
from smn_cli.errors import AdapterFileError, MismatchError
from tests.adapters.forging import Parts, put_together, take_apart, toy_adapter, toy_base

HEADER, PARTS = take_apart(toy_adapter().to_bytes())
KINDS: dict[str, Any] = {"null": None, "true": True, "number": 3, "float": 1.0, "text": "x", "list": [], "object": {}}
OWN_KIND = {dict: "object", list: "list", str: "text", int: "number", bool: "true"}


def read(header: dict[str, Any] | str, parts: Parts = PARTS) -> Adapter:
    return adapter_from_bytes(put_together(header, parts), source="a.safetensors")


def refused(header: dict[str, Any] | str, parts: Parts = PARTS) -> str:
    with pytest.raises(AdapterFileError) as error_info:
        read(header, parts)
    message = str(error_info.value)
    assert message.startswith("a.safetensors cannot be used: ")
    assert message.isprintable()
    assert len(message) < 400
    return message


def changed(path: tuple[str | int, ...], value: Any) -> dict[str, Any]:
    header: Any = copy.deepcopy(HEADER)
    place = header
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return dict(header)


def test_the_forger_itself_writes_what_smn_writes() -> None:
    assert put_together(HEADER, PARTS) == toy_adapter().to_bytes()
    assert read(HEADER).header == toy_adapter().header


@pytest.mark.parametrize("field", sorted(HEADER))
def test_a_missing_field_is_named(field: str) -> None:
    header = {key: value for key, value in HEADER.items() if key != field}
    assert f"the header lacks '{field}'" in refused(header)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("field", sorted(HEADER))
def test_a_field_of_the_wrong_type_is_named(field: str, kind: str) -> None:
    if OWN_KIND[type(HEADER[field])] != kind:
        assert f"{field} in the header is of type {type(KINDS[kind]).__name__}" in refused(
            changed((field,), KINDS[kind])
        )


@pytest.mark.parametrize("field", ["base", "adapted"])
@pytest.mark.parametrize("digest", ["", "0" * 63, "0" * 65, "0" * 64 + "\n", "G" * 64, "A" * 64, "0x" + "0" * 62])
def test_a_digest_is_64_lowercase_hexadecimal_digits(field: str, digest: str) -> None:
    assert f"{field}.digest is not 64 hexadecimal digits" in refused(changed((field, "digest"), digest))
    assert "lacks 'digest'" in refused(changed((field,), {}))


@pytest.mark.parametrize("version", [0, -1, 2, 1 << 60])
def test_another_version_is_refused_with_what_to_do(version: int) -> None:
    assert f"format version {version}: this smn reads version 1; update" in refused(changed(("version",), version))


def test_another_format_and_an_unknown_codec_are_named() -> None:
    assert "format 'peft': expected 'smn.adapter'" in refused(changed(("format",), "peft"))
    assert "codec 'brotli' is unknown to this smn: update" in refused(changed(("codec",), "brotli"))
    assert "codec '" + "z" * 39 + " is" in refused(changed(("codec",), "z" * 100_000))


@pytest.mark.parametrize(
    ("shape", "num_kept", "part"),
    [
        ([54], 0, "keeps 0 of 54"),
        ([54], -1, "keeps -1 of 54"),
        ([54], 55, "keeps 55 of 54"),
        ([54], True, "of type bool"),
        ([54], 4.0, "of type float"),
        ([54], "4", "of type str"),
        ([54], None, "of type NoneType"),
        ([0], 0, "no usable shape"),
        ([-54], 1, "no usable shape"),
        ([54.0], 1, "no usable shape"),
        (["54"], 1, "no usable shape"),
        ([True, 54], 1, "no usable shape"),
        ([[54]], 1, "no usable shape"),
        ([1] * 9, 1, "no usable shape"),
        (54, 1, "of type int: expected list"),
        ([1 << 41], 1, "no usable shape"),
        ([1 << 30, 1 << 30], 1 << 59, f"keeps {1 << 59} of {1 << 60} weights"),
        ([1 << 40] * 8, 1, "weights"),
    ],
)
def test_impossible_shapes_and_counts_are_refused(shape: Any, num_kept: Any, part: str) -> None:
    message = refused(changed(("masks", 0), ["conv.weight", shape, num_kept]))
    assert "masks[0]" in message
    assert part in message


@pytest.mark.parametrize("entry", [[], ["conv.weight"], ["conv.weight", [54], 4, 4], {}, None, "conv.weight", 3])
def test_a_mask_entry_has_three_parts(entry: Any) -> None:
    assert "masks[0]" in refused(changed(("masks", 0), entry))


def test_masks_are_some_and_each_once_and_not_too_many() -> None:
    assert "lists 0 masks" in refused(changed(("masks",), []))
    assert "lists a masked tensor twice" in refused(changed(("masks", 1), HEADER["masks"][0]))
    assert "lists 100001 masks" in refused(changed(("masks",), [0] * 100_001))
    huge = [[name, [1 << 39], 1] for name in ("a", "b", "c")]
    assert "promises more weights than any network has" in refused(changed(("masks",), huge))


BAD_NAMES = ["", "a\nb", "a\0b", "\x1b[2Jfc", "a\ud800", "fc\u202eweight", "x" * 513]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_names_that_cannot_be_shown_are_refused(name: str) -> None:
    assert "masks[0] holds no usable name" in refused(changed(("masks", 0, 0), name))
    assert "norm_stats[0] holds no usable name" in refused(
        changed(("norm_stats", 0, 0), name + "running_mean" * bool(name))
    )
    assert "arch holds no usable name" in refused(changed(("arch",), name))
    assert "license holds no usable name" in refused(changed(("license",), name))
    assert "description holds no usable name" in refused(changed(("description",), name * 9))
    if name:
        assert "tag holds no usable name" in refused(changed(("tag",), name))


@pytest.mark.parametrize("value", [1, None, ["MIT"], {"text": "MIT"}, True])
@pytest.mark.parametrize("field", ["license", "description"])
def test_a_text_of_another_type_is_refused(field: str, value: object) -> None:
    assert f"{field} in the header is of type {type(value).__name__}: expected str" in refused(changed((field,), value))


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "/dev/zero", "C:\\x", "classifier.weight", "norm.num_batches_tracked"]
)
def test_a_mask_over_what_the_base_does_not_have_is_refused(name: str) -> None:
    message = refused(changed(("masks", 0, 0), name))
    assert f"changes tensors that its base does not have: {name}" in message
    path_like = changed(("norm_stats", 0, 0), "../running_mean")
    assert "changes tensors that its base does not have: ../running_mean" in refused(path_like)


@pytest.mark.parametrize(
    ("pair", "part"),
    [
        (["norm.running_mean"], "not a name and a length"),
        (["norm.running_mean", 3, 3], "not a name and a length"),
        (["norm.running_mean", 0], "not a name and a length"),
        (["norm.running_mean", -3], "not a name and a length"),
        (["norm.running_mean", True], "not a name and a length"),
        (["norm.running_mean", 3.0], "not a name and a length"),
        (["norm.running_mean", 1 << 32], "not a name and a length"),
        ([3, 3], "of type int: expected str"),
        ("norm.running_mean", "of type str: expected list"),
        (["conv.weight", 3], "expected a name that ends in running_mean or running_var"),
        (["norm.running_mean", 4], "6 statistics do not fit the header's list"),
        (["norm.running_mean", (1 << 32) - 1], "6 statistics do not fit the header's list"),
        (["norm.running_var", 3], "lists statistics twice"),
    ],
)
def test_a_wrong_statistics_entry_is_refused(pair: Any, part: str) -> None:
    assert part in refused(changed(("norm_stats", 0), pair))


def test_a_tensor_is_masked_or_carried_but_not_both() -> None:
    both = changed(("masks", 0), ["norm.running_mean", [3], 1])
    assert "under both masks and norm_stats" in refused(both)


def test_statistics_promised_but_absent_or_present_but_unlisted_are_refused() -> None:
    without = {name: part for name, part in PARTS.items() if name != "norm_stats"}
    assert "0 statistics do not fit" in refused(HEADER, without)
    assert "6 statistics do not fit" in refused(changed(("norm_stats",), []))
    assert read(changed(("norm_stats",), []), without).header.norm_stats == ()


def text_of(header: dict[str, Any]) -> str:
    return json.dumps(header, sort_keys=True, separators=(",", ":"))


@pytest.mark.parametrize(
    ("old", "new", "part"),
    [
        ('"arch":"toy"', '"arch":"toy","arch":"toy"', "a key stands twice"),
        ('"seed":3', '"seed":3,"seed":4', "a key stands twice"),
        ('"seed":3', '"seed":NaN', "NaN is not a JSON number"),
        ('"seed":3', '"seed":-Infinity', "-Infinity is not a JSON number"),
        ('"seed":3', '"seed":1e999', "a number is too large"),
        ('"seed":3', f'"seed":{"9" * 5000}', "an integer has 5000 digits"),
        ('"version":1', f'"version":1{"0" * 30}', "an integer has 31 digits"),
        ('"seed":3', f'"seed":{"[" * 33}{"]" * 33}', "provenance in the header is nested more than 32 deep"),
        ('"seed":3', '"seed":' + '{"a":' * 40 + "1" + "}" * 40, "provenance in the header is nested more than 32"),
        ('"size":32', f'"size":{"[" * 900}{"]" * 900}', "preprocessing in the header is nested more than 32 deep"),
        ('"seed":3', f'"seed":{"[" * 200_000}{"]" * 200_000}', "not valid JSON"),
        ('"seed":3', '"seed":' + '{"a":' * 200_000, "not valid JSON"),
        ('"seed":3', '"seed":3,}', "not valid JSON"),
        ("{", "[", "not valid JSON"),
    ],
)
def test_json_that_others_could_read_differently_is_refused(old: str, new: str, part: str) -> None:
    assert part in refused(text_of(HEADER).replace(old, new, 1))


@pytest.mark.parametrize("text", ["", "3", "null", "[]", '"x"', "\ufeff{}", "{", "{}"])
def test_a_header_that_is_no_object_or_an_empty_one_is_refused(text: str) -> None:
    assert "header" in refused(text)


@pytest.mark.parametrize(("codec", "said"), [("bits", True), ("lzma", True), ("context", False), ("context2", False)])
def test_needs_base_that_is_not_the_codecs_is_refused(codec: str, said: bool) -> None:
    assert f"needs_base {said}, which codec {codec} does not" in refused({**HEADER, "codec": codec, "needs_base": said})


def test_unknown_keys_are_left_aside() -> None:
    adapter = read({**HEADER, "signed_by": {"name": "somebody"}, "zeta": [1, 2]})
    assert adapter.to_bytes() == toy_adapter().to_bytes()


def test_a_mask_for_another_shape_of_the_base_is_a_mismatch() -> None:
    wide = changed(("masks", 0), ["conv.weight", [1 << 20, 1 << 19], 3])
    with pytest.raises(MismatchError, match=r"conv\.weight has shape \(3, 2, 3, 3\) in the base"):
        read(wide).rebuild(toy_base())
    five = {**PARTS, "norm_stats": ("U16", [5], PARTS["norm_stats"][2][:10])}
    short = read(changed(("norm_stats", 0, 1), 2), five)
    with pytest.raises(MismatchError, match=r"statistics norm\.running_mean of 2 values do not fit the base"):
        short.rebuild(toy_base())


@pytest.mark.parametrize("count", [1, 43, 45, 54])
def test_a_count_that_the_bits_do_not_have_is_refused(count: int) -> None:
    with pytest.raises(AdapterFileError, match=rf"the mask of conv\.weight keeps 44: {count} recorded"):
        read(changed(("masks", 0, 2), count)).rebuild(toy_base())


def test_a_wrong_result_digest_is_refused_after_rebuilding() -> None:
    with pytest.raises(AdapterFileError, match="the rebuilt network is not the recorded one"):
        read(changed(("adapted", "digest"), "0" * 64)).rebuild(toy_base())


PROMISES: list[Callable[[], dict[str, Any]]] = [
    lambda: changed(("masks", 0), ["conv.weight", [1 << 40], 1 << 39]),
    lambda: changed(("masks", 0), ["conv.weight", [1 << 20, 1 << 20], 1]),
    lambda: changed(("masks", 0), ["conv.weight", [1 << 30, 1 << 30], 1]),
    lambda: changed(("norm_stats", 0), ["norm.running_mean", (1 << 32) - 1]),
]


@pytest.mark.parametrize("promise", PROMISES)
@pytest.mark.parametrize("codec", ["bits", "lzma", "context", "context2"])
def test_promises_of_terabytes_cost_nothing(codec: str, promise: Callable[[], dict[str, Any]]) -> None:
    data = put_together({**promise(), "codec": codec, "needs_base": codec.startswith("context")}, PARTS)
    tracemalloc.start()
    started = time.perf_counter()
    try:
        with pytest.raises((AdapterFileError, MismatchError)):
            adapter_from_bytes(data).rebuild(toy_base())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2_000_000
    assert time.perf_counter() - started < 5
