"""Commands that read an adapter start at once: they import neither torch nor what needs it."""

import ctypes
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from safetensors.torch import save_file as save_tensors

from smn_cli.adapters.adapter import make_adapter
from tests.conftest import Outcome, random_weights

Run = Callable[..., Outcome]
GOLDEN = Path(__file__).parent.parent / "golden"
HEAVY = ("torch", "timm", "torchvision", "sklearn", "scipy", "matplotlib", "PIL", "huggingface_hub")
RUN = """
import json, sys
from smn_cli.cli import main
try:
    main(sys.argv[2:])
except SystemExit as error:
    code = error.code
print(json.dumps([code, [name for name in sys.argv[1].split() if name in sys.modules]]), file=sys.stderr)
"""


@pytest.fixture(scope="module")
def resnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a ResNet's weights and of an adapter over them."""
    weights, folder = random_weights("resnet18"), tmp_path_factory.mktemp("resnet")
    save_tensors(weights, folder / "weights.safetensors")
    base = {name: tensor for name, tensor in weights.items() if not name.startswith("fc.")}
    masks = {"layer1.0.conv1.weight": base["layer1.0.conv1.weight"].abs() > 0.01}
    make_adapter(base, masks, arch="resnet18").save(folder / "adapter.safetensors")
    return folder


@pytest.mark.parametrize(
    "words",
    [
        "inspect {golden}/v1_bits_head.safetensors",
        "inspect {golden}/v1_context2_norm_stats.safetensors --json -",
        "inspect {golden}/v1_bits_readout_stages.safetensors",
        "diff {golden}/v1_bits.safetensors {golden}/v1_lzma_norm_stats.safetensors",
        "diff {golden}/v1_context.safetensors {golden}/v1_context2.safetensors --weights {golden}/base.safetensors",
        "verify {golden}/v1_context.safetensors --quick",
        "verify {golden}/v1_bits_head.safetensors --quick --json {tmp}/proof.json",
        "verify {golden}/v1_context2_norm_stats.safetensors --weights {golden}/base.safetensors",
        "apply {resnet}/adapter.safetensors --weights {resnet}/weights.safetensors --out {tmp}/out.safetensors",
    ],
)
def test_a_command_that_reads_an_adapter_imports_nothing_heavy(words: str, resnet: Path, tmp_path: Path) -> None:
    arguments = words.format(golden=GOLDEN, tmp=tmp_path, resnet=resnet).split()
    found = subprocess.run(
        [sys.executable, "-c", RUN, " ".join(HEAVY), *arguments], capture_output=True, text=True, check=True
    )
    assert json.loads(found.stderr.splitlines()[-1]) == [0, []], found.stderr


@pytest.mark.parametrize(
    "words",
    [
        "adapt {resnet} --arch test_resnet",
        "plan {resnet} --arch test_resnet",
        "eval {resnet} --arch test_resnet",
        "embed {resnet} --arch test_resnet --out {tmp}/e.npz",
        "pack {resnet} --out {tmp}/a.safetensors",
        "merge {golden}/v1_bits.safetensors {golden}/v1_context.safetensors --out {tmp}/m.safetensors",
        "diff {golden}/v1_bits.safetensors {golden}/v1_context.safetensors",
        "verify {golden}/v1_context.safetensors",
        "export {golden}/v1_bits.safetensors --onnx {tmp}/x",
        "data cifar10 {tmp}/cifar10 --root {tmp}",
    ],
)
def test_a_command_speaks_before_it_imports_anything_heavy(words: str, resnet: Path, tmp_path: Path) -> None:
    arguments = words.format(golden=GOLDEN, tmp=tmp_path, resnet=resnet).split()
    code = """
import sys
from smn_cli.cli import main
def write(text, known=sys.stderr.write):
    known(text + f"heavy: {[name for name in sys.argv[1].split() if name in sys.modules]}")
    raise SystemExit
sys.stderr.write = write
main(sys.argv[2:])
"""
    words_run = [sys.executable, "-c", code, " ".join(HEAVY), *arguments]
    found = subprocess.run(words_run, capture_output=True, text=True, check=False)
    assert found.stderr.startswith(f"smn {arguments[0]}: loading torch"), found.stderr
    assert "heavy: []" in found.stderr


def test_a_quick_look_proves_the_file_alone_and_says_so(run_cli: Run) -> None:
    outcome = run_cli("verify", GOLDEN / "v1_context.safetensors", "--quick", "--json", "-")
    assert outcome.code == 0, outcome.err
    content = json.loads(outcome.out)
    assert (content["quick"], content["canonical"], content["verified"]) == (True, True, True)
    assert "neither the base nor the rebuilt network was looked at" in outcome.err


def test_a_quick_look_refuses_an_altered_file(run_cli: Run, tmp_path: Path) -> None:
    data = bytearray((GOLDEN / "v1_context.safetensors").read_bytes())
    data[-40] ^= 1
    (tmp_path / "a.safetensors").write_bytes(data)
    outcome = run_cli("verify", tmp_path / "a.safetensors", "--quick")
    assert (outcome.code, outcome.out) == (6, "")
    assert "its checksum does not match" in outcome.err


def test_a_quick_look_tells_a_file_that_smn_would_not_have_written(run_cli: Run, tmp_path: Path) -> None:
    from smn_cli.adapters.container import seal, unseal

    tensors, text = unseal((GOLDEN / "v1_bits.safetensors").read_bytes(), {})
    arrays = {
        name: np.frombuffer(found["data"], dtype=np.uint8).reshape(found["shape"])
        for name, found in tensors.items()
        if name != "sha256"
    }
    (tmp_path / "a.safetensors").write_bytes(seal(arrays, text.replace(",", ", ", 1)))
    outcome = run_cli("verify", tmp_path / "a.safetensors", "--quick", "--json", "-")
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out)["canonical"] is False
    assert "canonical form: no" in outcome.err


def test_a_quick_look_takes_cascades(run_cli: Run) -> None:
    file = next(path for path in sorted((GOLDEN / "cascade").glob("*.safetensors")) if "base" not in path.name)
    outcome = run_cli("verify", file, "--quick", "--json", "-")
    assert outcome.code == 0, outcome.err
    content = json.loads(outcome.out)
    assert (content["canonical"], len(content["experts"]) > 0) == (True, True)


@pytest.mark.parametrize("option", ["--weights", "--checkpoint"])
def test_a_quick_look_needs_no_base(run_cli: Run, option: str) -> None:
    outcome = run_cli("verify", GOLDEN / "v1_bits.safetensors", "--quick", option, GOLDEN / "base.safetensors")
    assert (outcome.code, outcome.out) == (2, "")
    assert "--quick looks at the file alone" in outcome.err


def test_another_base_than_the_files_own_is_refused_without_torch_too(run_cli: Run, tmp_path: Path) -> None:
    """The file is not the base as it stands, so a network is asked for, which says what is wrong."""
    tensors = load_file(GOLDEN / "base.safetensors")
    tensors["stem.weight"].reshape(-1)[0] += 1
    save_file(tensors, tmp_path / "w.safetensors")
    one, other = GOLDEN / "v1_context.safetensors", GOLDEN / "v1_bits.safetensors"
    outcome = run_cli("diff", one, other, "--weights", tmp_path / "w.safetensors")
    assert (outcome.code, outcome.out) == (5, "")  # no timm model is called toy


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "None 1000 0"),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE None None"),
        ({"GOMP_SPINCOUNT": "9"}, "None 9 None"),
        ({"KMP_BLOCKTIME": "9"}, "None None 9"),
    ],
)
def test_threads_wait_briefly_unless_the_user_said_otherwise(given: dict[str, str], expected: str) -> None:
    code = (
        "import os, sys\nfrom smn_cli.cli import main\ntry: main(['--version'])\n"
        "except SystemExit: print(*map(os.environ.get, sys.argv[1:]), 'torch' in sys.modules)"
    )
    names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
    clean = {key: value for key, value in os.environ.items() if key not in names}
    found = subprocess.run(
        [sys.executable, "-c", code, *names], capture_output=True, text=True, check=True, env={**clean, **given}
    )
    assert found.stdout.splitlines()[-1] == f"{expected} False"


@pytest.mark.parametrize(("given", "expected"), [("", "https://huggingface.co"), ("http://a.b", "http://a.b")])
def test_a_hubs_address_that_is_empty_is_none(given: str, expected: str) -> None:
    code = (
        "from smn_cli.cli import main\ntry: main(['--version'])\nexcept SystemExit: pass\n"
        "from huggingface_hub import constants\nprint(constants.ENDPOINT)"
    )
    words = [sys.executable, "-c", code]
    environment = {**os.environ, "HF_ENDPOINT": given}
    found = subprocess.run(words, capture_output=True, text=True, check=True, env=environment)
    assert found.stdout.splitlines()[-1] == expected


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="another C library than glibc")
def test_memory_is_kept_unless_the_user_said_otherwise() -> None:
    """Page faults of writing 64 MB ten times over: once where freed memory stays, every time where it is given back."""
    code = (
        "import resource\nfrom smn_cli.cli import main\ntry: main(['--version'])\nexcept SystemExit: pass\n"
        "for _ in range(10): b'x' * (64 << 20)\nprint(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)"
    )

    def faults(**given: str) -> int:
        clean = {key: value for key, value in os.environ.items() if not key.startswith("MALLOC_")}
        words = [sys.executable, "-c", code]
        found = subprocess.run(words, capture_output=True, text=True, check=True, env={**clean, **given})
        return int(found.stdout.splitlines()[-1])

    assert 3 * faults() < faults(MALLOC_TRIM_THRESHOLD_="131072")
