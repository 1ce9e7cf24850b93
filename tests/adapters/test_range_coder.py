"""The range coder in Python is that of constriction: the same words, the same bits, the same refusals."""

import json
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from smn_cli.adapters.codecs import CODECS
from smn_cli.adapters.range_coder import Decoder, Encoder, PythonDecoder, PythonEncoder, new_decoder, new_encoder
from smn_cli.adapters.stored import load_stored
from smn_cli.errors import AdapterFileError
from tests.conftest import Outcome
from tests.golden.make_golden import FILES, masks

GOLDEN = Path(__file__).parents[1] / "golden"
Chances = npt.NDArray[np.float64]
Words = npt.NDArray[np.uint32]
CHANCES = st.sampled_from([1, 2, 7, 300, 32767, 32768, 60000, 65534, 65535]) | st.integers(1, 65535)
WORDS = st.sampled_from([0, 1, 0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF]) | st.integers(0, 0xFFFFFFFF)


@pytest.fixture
def _library() -> None:
    pytest.importorskip("constriction", reason="no constriction here: nothing to compare with")


@pytest.fixture
def no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where constriction is not installed."""
    monkeypatch.setitem(sys.modules, "constriction", None)


def encoded(encoder: Encoder, bits: np.ndarray, chances: Chances, lengths: list[int]) -> list[int]:
    for part in _parts(len(bits), lengths):
        encoder.encode(bits[part], chances[part])
    words = encoder.words()
    assert words.dtype == np.uint32
    return [int(word) for word in words]


def decoded(decoder: Decoder, chances: Chances, lengths: list[int]) -> list[bool] | str:
    """The bits, or what is wrong with them."""
    bits: list[bool] = []
    try:
        for part in _parts(len(chances), lengths):
            bits += decoder.decode(chances[part]).tolist()
    except AdapterFileError as error:
        return str(error).partition(":")[0]
    return bits if decoder.is_used_up() else "not used up"


def _parts(length: int, lengths: list[int]) -> list[slice]:
    ends = [*np.cumsum(lengths).clip(0, length).tolist(), length]
    return [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]


REFUSED = "the mask does not decode over this base"
LENGTHS = st.lists(st.integers(0, 40), max_size=6)


@pytest.mark.usefixtures("_library")
@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.booleans(), CHANCES), max_size=400), LENGTHS)
def test_any_bits_are_the_same_words_and_back(pairs: list[tuple[bool, int]], lengths: list[int]) -> None:
    bits = np.array([bit for bit, _ in pairs], dtype=np.bool_)
    chances = np.array([chance for _, chance in pairs], dtype=np.float64)
    words = encoded(new_encoder(), bits, chances, lengths)
    assert encoded(PythonEncoder(), bits, chances, lengths) == words
    for decoder in (new_decoder(np.array(words, np.uint32)), PythonDecoder(np.array(words, np.uint32))):
        assert decoded(decoder, chances, lengths) == bits.tolist()


@pytest.mark.usefixtures("_library")
@settings(max_examples=200, deadline=None)
@given(st.lists(WORDS, max_size=12), st.lists(CHANCES, max_size=400), LENGTHS)
@example([7, 7], [], [])  # words for nothing
def test_any_words_are_the_same_bits_or_refused_by_both(
    words: list[int], chances: list[int], lengths: list[int]
) -> None:
    given_words, told = np.array(words, np.uint32), np.array(chances, np.float64)
    found = decoded(PythonDecoder(given_words), told, lengths)
    assert decoded(new_decoder(given_words), told, lengths) == found


@pytest.mark.usefixtures("_library")
@settings(max_examples=100, deadline=None)
@given(WORDS, st.integers(1, 9), st.sampled_from([0, 0xFFFFFFFF]), WORDS, st.lists(CHANCES, min_size=1, max_size=400))
def test_a_carry_goes_through_as_many_words_as_it_has_to(
    first: int, num_same: int, same: int, last: int, chances: list[int]
) -> None:
    """Bits whose words are long runs of ones or zeros, found by reading such words."""
    told, decoder = np.array(chances, np.float64), PythonDecoder(np.array([first, *[same] * num_same, last], np.uint32))
    bits: list[bool] = []
    try:
        for chance in told:
            bits += decoder.decode(np.array([chance])).tolist()
    except AdapterFileError:
        told = told[: len(bits)]
    coded = np.array(bits, dtype=np.bool_)
    assert encoded(PythonEncoder(), coded, told, []) == encoded(new_encoder(), coded, told, [])


@pytest.mark.usefixtures("_library")
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("offset", [0, 1, (1 << 33) - 2, (1 << 33) - 1, 1 << 33, "width - 1", "width"])
def test_the_ends_of_the_range_are_where_those_of_constriction_are(offset: int | str, last: bool) -> None:
    generator = np.random.default_rng(3)
    chances = generator.integers(1, 1 << 16, 300).astype(np.float64)
    bits = np.append(generator.random(299) < chances[:-1] / (1 << 16), last)
    encoder = PythonEncoder()
    encoder.encode(bits, chances)
    number = sum(word << 32 * place for place, word in enumerate(reversed(encoder._words))) << 64
    at = {"width - 1": encoder._range - 1, "width": encoder._range}.get(str(offset), offset)
    number += encoder._lower + int(at)
    words = [number >> 32 * place & 0xFFFFFFFF for place in reversed(range(len(encoder._words) + 2))]
    found = decoded(PythonDecoder(np.array(words, np.uint32)), chances, [])
    assert decoded(new_decoder(np.array(words, np.uint32)), chances, []) == found
    expected: dict[int | str, object] = {0: bits.tolist(), (1 << 33) - 2: bits.tolist(), (1 << 33) - 1: "not used up"}
    assert found == expected.get(offset, found)
    assert offset != "width" or not last or found == REFUSED


def a_base(sizes: list[tuple[int, int]], generator: np.random.Generator) -> list[np.ndarray]:
    return [generator.normal(size=size).astype(np.float32) for size in sizes]


@pytest.mark.slow
@pytest.mark.usefixtures("_library")
@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["context", "context2"]),
    st.lists(st.tuples(st.integers(1, 60), st.integers(1, 60)), min_size=1, max_size=4),
    st.sampled_from([0.0, 0.001, 0.03, 0.5, 0.9, 1.0]),
    st.booleans(),
    st.integers(0, 1 << 30),
)
def test_masks_of_all_sizes_and_densities_are_the_same_bytes_with_and_without_constriction(
    name: str, sizes: list[tuple[int, int]], cut: float, is_skewed: bool, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    base = a_base(sizes, generator)
    all_weights = np.concatenate([tensor.reshape(-1) for tensor in base])
    bits = generator.random(len(all_weights)) >= cut
    if is_skewed:  # cut where the weight is small, as training does
        bits |= np.abs(all_weights) > np.quantile(np.abs(all_weights), 0.4)
    payload = CODECS[name].encode(bits, base)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "constriction", None)
        assert CODECS[name].encode(bits, base) == payload
        assert CODECS[name].decode(payload, len(bits), base).tolist() == bits.tolist()
        words = bytearray(payload)
        words[-1] ^= 0x55
        own = _outcome(bytes(words), len(bits), base, name)
    assert _outcome(bytes(words), len(bits), base, name) == own


def _outcome(payload: bytes, num_bits: int, base: list[np.ndarray], name: str) -> list[bool] | None:
    try:
        return [bool(bit) for bit in CODECS[name].decode(payload, num_bits, base)]
    except AdapterFileError:
        return None


@pytest.mark.usefixtures("no_library")
def test_without_constriction_the_coder_is_that_in_python() -> None:
    assert isinstance(new_encoder(), PythonEncoder)
    assert isinstance(new_decoder(np.zeros(0, np.uint32)), PythonDecoder)


@pytest.mark.usefixtures("_library")
def test_with_constriction_it_is_constriction() -> None:
    assert not isinstance(new_encoder(), PythonEncoder)
    assert not isinstance(new_decoder(np.zeros(0, np.uint32)), PythonDecoder)


@pytest.mark.parametrize("name", [name for name, (codec, _) in FILES.items() if "context" in codec])
@pytest.mark.usefixtures("no_library")
def test_golden_files_are_read_and_written_without_constriction(name: str) -> None:
    weights = load_file(GOLDEN / "base.safetensors")
    stored = load_stored(GOLDEN / name)
    found = stored.mask_arrays(weights)
    assert {key: mask.tolist() for key, mask in found.items()} == {key: mask.tolist() for key, mask in masks().items()}
    entries = [entry.name for entry in stored.header.masks]
    bits = np.concatenate([found[key].reshape(-1) for key in entries])
    payload = CODECS[stored.header.codec].encode(bits, [weights[key] for key in entries])
    assert payload in (GOLDEN / name).read_bytes()


def test_words_are_not_held_as_objects_of_python() -> None:
    words = np.zeros(1 << 20, np.uint32)
    tracemalloc.start()
    try:
        PythonDecoder(words).decode(np.full(64, 32768.0))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 5 << 20


IMPORTS = """
import json, sys
from smn_cli.cli import main
try:
    main(sys.argv[1:])
except SystemExit as error:
    print(json.dumps([error.code, "constriction" in sys.modules]), file=sys.stderr)
"""


@pytest.mark.parametrize(("name", "is_loaded"), [("v1_bits", False), ("v1_lzma", False), ("v1_context", True)])
@pytest.mark.usefixtures("_library")
def test_constriction_is_imported_only_where_a_payload_needs_it(name: str, is_loaded: bool) -> None:
    words = ["diff", GOLDEN / f"{name}.safetensors", GOLDEN / "v1_bits_norm_stats.safetensors"]
    words += ["--weights", GOLDEN / "base.safetensors"]
    done = subprocess.run([sys.executable, "-c", IMPORTS, *map(str, words)], capture_output=True, text=True, check=True)
    assert json.loads(done.stderr.splitlines()[-1]) == [0, is_loaded], done.stderr


@pytest.mark.usefixtures("no_library")
def test_a_command_reads_an_entropy_coded_file_without_constriction(run_cli: Callable[..., Outcome]) -> None:
    one, other = GOLDEN / "v1_context.safetensors", GOLDEN / "v1_bits.safetensors"
    outcome = run_cli("diff", one, other, "--weights", GOLDEN / "base.safetensors", "--json", "-")
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out)["agreement"] == 1.0
