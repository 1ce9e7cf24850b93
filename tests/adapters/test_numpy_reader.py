"""examples/numpy_reader.py, written from docs/format.md alone, agrees with smn on good files and refuses bad ones."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from safetensors.torch import load_file
from torch import Tensor

from smn_cli.adapters.adapter import load_adapter, make_adapter
from smn_cli.adapters.codecs import CODECS
from smn_cli.errors import AdapterFileError
from tests.adapters.forging import put_together, random_masks, take_apart, toy_adapter, toy_base
from tests.conftest import CONVNET, VIT, random_weights
from tests.golden.make_golden import FILES

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "examples" / "numpy_reader.py"
HEADER, PARTS = take_apart(toy_adapter().to_bytes())


def load_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("numpy_reader", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


reader = load_script()


def rebuild(data: bytes, base: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return dict(reader.rebuild(data, base))


def arrays(state: dict[str, Tensor]) -> dict[str, np.ndarray]:
    return {name: tensor.numpy() for name, tensor in state.items()}


def same(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> bool:
    return first.keys() == second.keys() and all(
        first[name].dtype == second[name].dtype
        and first[name].shape == second[name].shape
        and first[name].tobytes() == second[name].tobytes()
        for name in first
    )


@pytest.mark.slow
@pytest.mark.parametrize("codec", ["bits", "lzma", "context", "context2"])
@pytest.mark.parametrize("arch", [CONVNET, VIT])
def test_it_rebuilds_what_smn_rebuilds(arch: str, codec: str) -> None:
    base = random_weights(arch)
    moved = {name: tensor + 0.125 for name, tensor in base.items() if name.endswith(("running_mean", "running_var"))}
    masks = random_masks({name: base[name] for name in base if "classifier" not in name}, density=0.9)
    adapter = make_adapter(base, masks, arch=arch, norm_stats=moved, codec=codec)
    assert same(rebuild(adapter.to_bytes(), arrays(base)), arrays(adapter.rebuild(base)))


@pytest.mark.parametrize("name", FILES)
def test_it_reads_the_golden_files(name: str) -> None:
    base = load_file(ROOT / "tests" / "golden" / "base.safetensors")
    rebuilt = rebuild((ROOT / "tests" / "golden" / name).read_bytes(), arrays(base))
    assert same(rebuilt, arrays(load_adapter(ROOT / "tests" / "golden" / name).rebuild(base)))


def test_what_the_base_does_not_have_is_passed_on() -> None:
    more = {**arrays(toy_base()), "classifier.weight": np.ones((2, 5), np.float32)}
    rebuilt = rebuild(toy_adapter().to_bytes(), more)
    assert same(rebuilt, {**arrays(toy_adapter().rebuild(toy_base())), "classifier.weight": more["classifier.weight"]})


def test_it_sees_values_and_not_layout_or_byte_order() -> None:
    base = arrays(toy_base())
    laid_out = {name: array.astype(array.dtype.newbyteorder(">"), order="F") for name, array in base.items()}
    assert same(
        {name: array.astype(base[name].dtype) for name, array in rebuild(toy_adapter().to_bytes(), laid_out).items()},
        arrays(toy_adapter().rebuild(toy_base())),
    )


def test_it_refuses_every_flipped_byte_and_truncation() -> None:
    data, base = toy_adapter().to_bytes(), arrays(toy_base())
    for position in range(len(data)):
        flipped = data[:position] + bytes([data[position] ^ 0x10]) + data[position + 1 :]
        for damaged in (flipped, data[:position]):
            with pytest.raises(reader.Refused):
                rebuild(damaged, base)


def test_it_names_the_first_tensor_that_differs() -> None:
    base = arrays(toy_base())
    base["norm.running_var"] = base["norm.running_var"] + 1
    with pytest.raises(reader.Refused, match=r"first differing tensor: norm\.running_var"):
        rebuild(toy_adapter().to_bytes(), base)


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"version": 2}, "not of version 1"),
        ({"codec": "brotli"}, "codec 'brotli' is unknown"),
        ({"codec": "lzma"}, "the mask does not end where it should"),
        ({"adapted": {"digest": "0" * 64}}, "the rebuilt network is not the recorded one"),
        ({"masks": [["conv.weight", [1 << 20, 1 << 20], 1]]}, "conv.weight does not fit the base"),
        ({"masks": [["conv.weight", [3, 2, 3, 3], 43], HEADER["masks"][1]]}, "conv.weight does not keep 43"),
        ({"masks": HEADER["masks"][:1]}, "the mask has another length"),
        ({"norm_stats": [["norm.running_mean", 3]]}, "statistics are left over"),
    ],
)
def test_it_refuses_a_lying_header(changes: dict[str, object], part: str) -> None:
    with pytest.raises(reader.Refused, match=part):
        rebuild(put_together({**HEADER, **changes}, PARTS), arrays(toy_base()))


@pytest.mark.parametrize("codec", ["context", "context2"])
@pytest.mark.parametrize("shape", [(), (700,), (1, 700), (2, 350), (350, 2), (7, 5, 10, 2)])
def test_both_decode_tensors_of_every_shape(shape: tuple[int, ...], codec: str) -> None:
    generator = np.random.default_rng(0)
    base = [generator.normal(size=shape).astype(np.float32), generator.normal(size=(30, 20)).astype(np.float32)]
    bits = generator.random(base[0].size + 600) < 0.8
    payload = CODECS[codec].encode(bits, base)
    assert reader.CODECS[codec](payload, len(bits), base).tolist() == bits.tolist()
    assert CODECS[codec].decode(payload, len(bits), base).tolist() == bits.tolist()


@pytest.mark.parametrize("beyond", [0, 1, 1 << 31, 0xF0000000])
def test_both_refuse_a_last_word_that_no_writer_ends_with(beyond: int) -> None:
    base = [np.arange(6, dtype=np.float32).reshape(2, 3)]
    payload = CODECS["context2"].encode(np.array([0, 0, 1, 1, 1, 1], dtype=bool), base)
    word = int.from_bytes(payload[2:], "little")
    other = payload[:2] + ((word + beyond) % (1 << 32)).to_bytes(4, "little")
    outcomes = []
    for decode, refusal in ((reader.CODECS["context2"], reader.Refused), (CODECS["context2"].decode, AdapterFileError)):
        try:
            outcomes.append(decode(other, 6, base).tolist())
        except refusal:
            outcomes.append("refused")
    assert outcomes[0] == outcomes[1]
    assert (outcomes[0] == "refused") == (beyond > 1)


def test_it_needs_numpy_and_the_standard_library_only() -> None:
    code = (
        "import sys, runpy; runpy.run_path('examples/numpy_reader.py')\n"
        "roots = {name.partition('.')[0] for name in sys.modules} - set(sys.stdlib_module_names)\n"
        "print(sorted(roots & {'torch', 'safetensors', 'smn_cli', 'timm', 'bitarray', 'numpy'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "['numpy']\n"


def test_it_stays_short() -> None:
    assert len(SCRIPT.read_text(encoding="utf-8").splitlines()) < 340
