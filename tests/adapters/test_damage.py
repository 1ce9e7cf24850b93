"""A file that was cut, altered or made of noise gives one clear error and nothing else."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from smn_cli.adapters.adapter import adapter_from_bytes, load_adapter
from smn_cli.adapters.fingerprint import fingerprint
from smn_cli.errors import AdapterFileError, MismatchError
from tests.adapters.forging import put_together, sign, take_apart, toy_adapter, toy_base

FILE = toy_adapter().to_bytes()
LZMA_FILE = toy_adapter("lzma").to_bytes()
CONTEXT_FILE = toy_adapter("context").to_bytes()
CONTEXT2_FILE = toy_adapter("context2").to_bytes()
BASE = toy_base()
EXPECTED = toy_adapter().header.adapted_digest
DOCUMENTED = {"rebuilt", "AdapterFileError", "MismatchError"}

# every run: about 15,000 bit flips, 7,400 of them re-signed too, 1,900 truncations and 2,500 fuzzed files
FUZZ = settings(max_examples=500, deadline=None)


def outcome(data: bytes) -> str:
    """What becomes of a file: "rebuilt" as recorded, or the documented error; anything else is raised."""
    try:
        state = adapter_from_bytes(data, source="a.safetensors").rebuild(BASE)
    except (AdapterFileError, MismatchError) as error:
        is_one_line = "\n" not in str(error) and 10 < len(str(error)) < 500
        return type(error).__name__ if is_one_line else f"a bad message: {error}"
    return "rebuilt" if fingerprint(state).digest == EXPECTED else "another network"


@pytest.mark.parametrize(
    "data", [FILE, LZMA_FILE, CONTEXT_FILE, CONTEXT2_FILE], ids=["bits", "lzma", "context", "context2"]
)
def test_every_single_bit_flip_is_refused(data: bytes) -> None:
    assert outcome(data) == "rebuilt"
    for position in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[position // 8] ^= 1 << position % 8
        with pytest.raises(AdapterFileError, match=r"was truncated or altered \(its checksum does not match\)"):
            adapter_from_bytes(bytes(flipped))


@pytest.mark.parametrize(
    "data", [FILE, LZMA_FILE, CONTEXT_FILE, CONTEXT2_FILE], ids=["bits", "lzma", "context", "context2"]
)
def test_every_truncation_is_refused(data: bytes) -> None:
    for length in range(len(data)):
        with pytest.raises(AdapterFileError, match="truncated"):
            adapter_from_bytes(data[:length])
    with pytest.raises(AdapterFileError, match="altered"):
        adapter_from_bytes(data + b"\0")
    with pytest.raises(AdapterFileError, match="altered"):
        adapter_from_bytes(data[1:])


@pytest.mark.slow
@pytest.mark.parametrize("data", [FILE, CONTEXT_FILE, CONTEXT2_FILE], ids=["bits", "context", "context2"])
def test_every_single_bit_flip_under_a_right_checksum_is_refused_or_changes_nothing(data: bytes) -> None:
    outcomes = set()
    for position in range(8 * (len(data) - 32)):
        flipped = bytearray(data)
        flipped[position // 8] ^= 1 << position % 8
        outcomes.add(outcome(sign(bytes(flipped))))
    # what is for people only may change: architecture, tag, preprocessing, provenance
    assert outcomes == DOCUMENTED


@FUZZ
@given(st.binary(max_size=600))
@example(b"")
@example(bytes(40))
@example(b"\xff" * 200)
def test_noise_is_refused(data: bytes) -> None:
    assert outcome(data) == "AdapterFileError"
    assert outcome(sign(data + bytes(32))) == "AdapterFileError"


@FUZZ
@given(st.lists(st.tuples(st.integers(0, len(FILE) - 33), st.binary(min_size=1, max_size=6)), min_size=1, max_size=4))
def test_overwritten_bytes_under_a_right_checksum_give_only_documented_errors(changes: list[tuple[int, bytes]]) -> None:
    data = bytearray(FILE)
    for position, written in changes:
        data[position : position + len(written)] = written
    assert outcome(sign(bytes(data))) in DOCUMENTED


@pytest.mark.slow
@FUZZ
@given(st.data())
def test_payloads_of_noise_never_make_another_network(data: st.DataObject) -> None:
    header, parts = take_apart(data.draw(st.sampled_from([FILE, LZMA_FILE, CONTEXT_FILE])))
    name = data.draw(st.sampled_from(["mask", "norm_stats", "base_digests"]))
    dtype, shape, old = parts[name]
    new = data.draw(st.binary(min_size=len(old), max_size=len(old)))
    result = outcome(put_together(header, {**parts, name: (dtype, shape, new)}))
    # digests per tensor only serve to name what differs: with other ones a good base may be refused or still be known
    assert result in DOCUMENTED
    assert result != "rebuilt" or new == old or name == "base_digests"


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.slow
@FUZZ
@given(st.sampled_from(sorted(take_apart(FILE)[0])), VALUES)
def test_any_value_in_any_header_field_gives_only_documented_errors(field: str, value: object) -> None:
    header, parts = take_apart(FILE)
    result = outcome(put_together({**header, field: value}, parts))
    assert result in DOCUMENTED
    if field in ("base", "adapted", "codec", "masks", "norm_stats", "format", "version") and value != header[field]:
        assert result != "rebuilt"


def no_file(folder: Path) -> Path:
    return folder / "none.safetensors"


def a_folder(folder: Path) -> Path:
    return folder


def an_empty_file(folder: Path) -> Path:
    (folder / "empty").touch()
    return folder / "empty"


def a_pickle(folder: Path) -> Path:
    (folder / "model.pth").write_bytes(b"\x80\x02cos\nsystem\nX\x05\0\0\0touchq\x85R." + bytes(100))
    return folder / "model.pth"


@pytest.mark.parametrize("make", [no_file, a_folder, an_empty_file, a_pickle])
def test_what_is_no_adapter_file_is_refused_by_its_path(make: Callable[[Path], Path], tmp_path: Path) -> None:
    path = make(tmp_path)
    with pytest.raises(AdapterFileError) as error_info:
        load_adapter(path)
    assert str(error_info.value).startswith((f"{path} cannot be ", f"{path} is a folder: expected a file"))
    assert error_info.value.exit_code == 6
