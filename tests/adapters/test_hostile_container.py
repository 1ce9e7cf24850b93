"""Tensors and containers that lie under a correct checksum are refused in bounded time and memory."""

import json
import lzma
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from smn_cli.adapters.adapter import adapter_from_bytes, load_adapter
from smn_cli.errors import AdapterFileError
from tests.adapters.forging import Parts, put_together, sign, take_apart, toy_adapter, toy_base

HEADER, PARTS = take_apart(toy_adapter().to_bytes())
ROOT = Path(__file__).parents[2]


def refused(parts: Parts) -> str:
    with pytest.raises(AdapterFileError) as error_info:
        adapter_from_bytes(put_together(HEADER, parts)).rebuild(toy_base())
    assert str(error_info.value).isprintable()
    return str(error_info.value)


def container(text: str | bytes, body: bytes = b"") -> bytes:
    """A signed file with this safetensors header, whatever it is."""
    encoded = text if isinstance(text, bytes) else text.encode()
    return sign(len(encoded).to_bytes(8, "little") + encoded + body + bytes(32))


def refused_container(data: bytes) -> str:
    with pytest.raises(AdapterFileError) as error_info:
        adapter_from_bytes(data)
    assert str(error_info.value).isprintable()
    return str(error_info.value)


@pytest.mark.parametrize("name", ["mask", "base_digests"])
def test_a_missing_tensor_is_named(name: str) -> None:
    assert f"lacks the tensor '{name}'" in refused({key: part for key, part in PARTS.items() if key != name})


@pytest.mark.parametrize(
    ("name", "part", "message"),
    [
        ("mask", ("I8", [9], bytes(9)), "'mask' is of type I8: expected U8"),
        ("mask", ("BOOL", [9], bytes(9)), "'mask' is of type BOOL: expected U8"),
        ("mask", ("F64", [2], bytes(16)), "'mask' is of type F64: expected U8"),
        ("mask", ("U8", [3, 3], bytes(9)), "'mask' has 2 dimensions: expected one"),
        ("mask", ("U8", [], b"\1"), "'mask' has 0 dimensions: expected one"),
        ("mask", ("U8", [0], b""), "the mask has 0 bytes where 69 bits need 9"),
        ("mask", ("U8", [8], bytes(8)), "the mask has 8 bytes where 69 bits need 9"),
        ("mask", ("U8", [10], bytes(10)), "the mask has 10 bytes where 69 bits need 9"),
        ("mask", ("U8", [9], b"\xff" * 9), "bits set beyond its end"),
        ("mask", ("U8", [9], bytes(9)), "the mask of conv.weight keeps 0: 44 recorded"),
        ("norm_stats", ("F64", [6], bytes(48)), "'norm_stats' is of type F64: expected U16"),
        ("norm_stats", ("F32", [6], bytes(24)), "'norm_stats' is of type F32: expected U16"),
        ("norm_stats", ("U16", [2, 3], bytes(12)), "'norm_stats' has 2 dimensions: expected one"),
        ("norm_stats", ("U16", [7], bytes(14)), "7 statistics do not fit"),
        ("norm_stats", ("U16", [6], struct.pack("<6H", 1, 2, 0x7FC0, 4, 5, 6)), "not all finite"),
        ("norm_stats", ("U16", [6], struct.pack("<6H", 1, 2, 0xFF80, 4, 5, 6)), "not all finite"),
        ("base_digests", ("I8", [4, 4], bytes(16)), "'base_digests' is of type I8"),
        ("base_digests", ("U8", [16], bytes(16)), "base_digests has shape [16]: expected rows of 4"),
        ("base_digests", ("U8", [2, 8], bytes(16)), "base_digests has shape [2, 8]: expected rows of 4"),
        ("base_digests", ("U8", [4, 4, 1], bytes(16)), "base_digests has shape [4, 4, 1]"),
        ("base_digests", ("U8", [0, 4], b""), "base_digests has shape [0, 4]"),
        ("base_digests", ("U8", [4, 4], bytes(16)), "changes tensors that its base does not have"),
    ],
)
def test_a_tensor_of_another_kind_is_refused(name: str, part: tuple[str, list[int], bytes], message: str) -> None:
    assert message in refused({**PARTS, name: part})


def test_surplus_tensors_are_left_aside() -> None:
    more = {**PARTS, "zzz": ("F32", [2], bytes(8)), "a/../b": ("U8", [0], b"")}
    assert adapter_from_bytes(put_together(HEADER, more)).to_bytes() == toy_adapter().to_bytes()


def test_a_checksum_that_is_not_the_last_tensor_is_refused() -> None:
    data = put_together(HEADER, PARTS)
    assert "lacks the tensor 'sha256'" in refused_container(sign(data.replace(b'"sha256":', b'"sha255":')))
    early = {"sha256": ("U8", [32], bytes(32)), **PARTS}
    text = json.dumps({"__metadata__": {"smn": json.dumps(HEADER)}})[:-1]
    body = b""
    for name, (dtype, shape, content) in early.items():
        offsets = [len(body), len(body) + len(content)]
        text += f', "{name}": ' + json.dumps({"dtype": dtype, "shape": shape, "data_offsets": offsets})
        body += content
    text += ', "last": ' + json.dumps({"dtype": "U8", "shape": [32], "data_offsets": [len(body), len(body) + 32]}) + "}"
    assert "its checksum is not at its end" in refused_container(container(text, body))


SHA = '"sha256":{"dtype":"U8","shape":[32],"data_offsets":[0,32]}'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no possible length"),
        ("{}", "not a valid safetensors file"),
        ("null", "not a valid safetensors file"),
        (b"\xff" * 40, "not a valid safetensors file"),
        (f'{{"__metadata__":3,{SHA}}}', "not a valid safetensors file"),
        (f'{{"__metadata__":{{"smn":3}},{SHA}}}', "not a valid safetensors file"),
        (f"{{{SHA}}}", "lacks the tensor 'base_digests'"),
        (f'{{{SHA},"a":{{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}}}', "not a valid safetensors file"),
        ('{"sha256":{"dtype":"U8","shape":[64],"data_offsets":[0,64]}}', "not a valid safetensors file"),
        ('{"sha256":{"dtype":"U8","shape":[4294967296,4294967296],"data_offsets":[0,32]}}', "not a valid safetensors"),
        ('{"sha256":{"dtype":"F99","shape":[32],"data_offsets":[0,32]}}', "not a valid safetensors file"),
        ('{"sha256":{"dtype":"U8","shape":[-32],"data_offsets":[0,32]}}', "not a valid safetensors file"),
        ('{"a":' + "[" * 100_000, "not a valid safetensors file"),
    ],
)
def test_a_container_that_safetensors_refuses_is_refused(text: str | bytes, message: str) -> None:
    assert message in refused_container(container(text))


@pytest.mark.parametrize("length", [0, 1, 10_000, 1 << 31, 1 << 63, (1 << 64) - 1])
def test_an_impossible_header_length_is_refused(length: int) -> None:
    data = put_together(HEADER, PARTS)
    assert "no possible length" in refused_container(sign(length.to_bytes(8, "little") + data[8:]))


def test_another_kind_of_safetensors_file_is_no_adapter() -> None:
    data = put_together(HEADER, PARTS)
    assert "it has no 'smn' metadata: it is not an adapter" in refused_container(sign(data.replace(b'"smn"', b'"foo"')))


def test_a_container_that_says_something_twice_is_refused() -> None:
    data = put_together(HEADER, PARTS)
    length = int.from_bytes(data[:8], "little")
    text, body = data[8 : 8 + length], data[8 + length : -32]
    other = json.dumps({"smn": json.dumps({**HEADER, "arch": "other"})}).encode()
    refused_container(container(b'{"__metadata__":' + other + b"," + text[1:], body))
    refused_container(container(text.replace(b'{"smn":', b'{"smn":"x","smn":', 1), body))
    place = text.index(b'"mask":')
    refused_container(container(text[:place] + text[place : text.index(b"}", place) + 1] + b"," + text[place:], body))


def test_a_huge_container_header_is_refused_before_it_is_parsed() -> None:
    data = container(b'{"__metadata__":{"smn":"' + b" " * (1 << 24) + b'"},' + SHA.encode() + b"}")
    started = time.perf_counter()
    assert "no possible length" in refused_container(data)
    assert time.perf_counter() - started < 5


def test_an_xz_bomb_in_a_file_is_refused() -> None:
    bomb = lzma.compress(bytes(50_000_000), preset=0)
    data = put_together({**HEADER, "codec": "lzma"}, {**PARTS, "mask": ("U8", [len(bomb)], bomb)})
    with pytest.raises(AdapterFileError, match="does not end after the 9 bytes it should have"):
        adapter_from_bytes(data).rebuild(toy_base())


CHILD = """
import json, resource, sys
from smn_cli.adapters.adapter import load_adapter
from smn_cli.errors import AdapterFileError
from tests.adapters.forging import toy_base
base = toy_base()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
errors = []
for path in sys.argv[1:]:
    try:
        load_adapter(path).rebuild(base)
    except AdapterFileError as error:
        errors.append(str(error))
print(json.dumps({"kibibytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, "errors": errors}))
"""


@pytest.mark.slow
def test_no_bomb_takes_memory_from_the_process(tmp_path: Path) -> None:
    bomb = lzma.compress(bytes(400_000_000), preset=0)
    files = {
        "xz": put_together({**HEADER, "codec": "lzma"}, {**PARTS, "mask": ("U8", [len(bomb)], bomb)}),
        "arrays": put_together(json.dumps(HEADER).replace("{", '{"a":[' + "[]," * 300_000 + "[]],", 1), PARTS),
        "lists": container(b'{"a":[' + b"[]," * 1_000_000 + b"[]]}"),
        "count": put_together({**HEADER, "masks": [["conv.weight", [1 << 30, 1 << 30], 1]]}, PARTS),
        "digits": put_together(json.dumps(HEADER).replace('"seed": 3', '"seed": ' + "7" * 3_000_000), PARTS),
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    paths = [str(tmp_path / name) for name in files]
    done = subprocess.run(
        [sys.executable, "-c", CHILD, *paths], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    told = json.loads(done.stdout)
    assert [error.partition(" cannot")[0] for error in told["errors"][1:]] == [paths[2], paths[3], paths[4]]
    assert "does not end after the 9 bytes" in told["errors"][0]
    # the decoder and parsed lists may take some; the bomb alone is 400 MB
    assert told["kibibytes"] < 150_000
    assert load_adapter(paths[1]).header.arch == "toy"  # an unknown key, though a large one
