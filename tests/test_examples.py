"""The examples run as they stand; what needs another service is at least well formed."""

import os
import subprocess
import sys
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

from smn_cli.errors import BackboneError
from tests.conftest import RESNET, write_images

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent


@pytest.fixture
def lite0() -> Path:
    from smn_cli.backbones.packaged import lite0_weights

    try:
        return lite0_weights()
    except BackboneError as error:
        pytest.skip(str(error))


def loaded(name: str) -> ModuleType:
    """An example as a module."""
    spec = spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    example = module_from_spec(spec)
    spec.loader.exec_module(example)
    return example


@pytest.mark.real
def test_the_python_example_adapts_and_undoes(
    lite0: Path, image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # plain timm loads what smn converts, so the example gets a checkpoint in timm's own names
    from safetensors.torch import save_file

    from smn_cli.backbones.loading import load_backbone

    backbone = load_backbone("tf_efficientnet_lite0", lite0)
    weights = tmp_path / "lite0.safetensors"
    state = {**backbone.model.state_dict(), **backbone.classifier}
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, weights)
    example = loaded("python_api")
    settings = {"batch_size": 8, "steps": 3, "size": 32, "teacher_size": 48, "keep": "last"}
    example.main(str(image_folder), str(weights), str(tmp_path / "a.safetensors"), **settings)
    out = capsys.readouterr().out
    assert "adapted outputs differ from the base: True" in out
    assert "removed again, bit for bit: True" in out


def test_two_adapters_are_switched_copied_and_taken_off(
    weights_file: Callable[[str], Path], image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_images(tmp_path / "other", 24, seed=1, colour=2)
    settings = {"recipe": "paper", "steps": 3, "size": 32, "batch_size": 8, "local_views": 0, "lr_scores": 5000.0}
    folders = str(image_folder), str(tmp_path / "other")
    loaded("several_adapters").main(RESNET, str(weights_file(RESNET)), *folders, **settings)
    out = capsys.readouterr().out
    told = dict(line.split(": ") for line in out.splitlines() if line.endswith(("True", "False")))
    assert set(told.values()) == {"True"}
    assert len(told) == 4
    assert "features (24, " in out
    assert "active=None" in out


def test_a_type_checker_sees_the_real_types_in_a_users_script(tmp_path: Path) -> None:
    script = tmp_path / "users.py"
    script.write_text(
        "import smn_cli\n"
        "reveal_type(smn_cli.load_adapter)\n"
        "reveal_type(smn_cli.load_adapter('a').density)\n"
        "reveal_type(smn_cli.AdapterSet.use)\n"
        "reveal_type(smn_cli.MismatchError('x').exit_code)\n"
        "smn_cli.lod_adapter\n"
        "smn_cli.AdaptOptions(steps='many')\n"
    )
    examples = [ROOT / "examples" / name for name in ("python_api.py", "several_adapters.py")]
    command = [sys.executable, "-m", "mypy", "--strict", "--no-pretty", *map(str, examples), str(script)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    lines = [line.partition("users.py:")[2] for line in done.stdout.splitlines()]
    found = {int(line.partition(":")[0]): line.partition(": ")[2] for line in lines if line}
    assert {number: told for number, told in found.items() if number < 6} == {
        2: 'note: Revealed type is "def (path: str | pathlib.Path) -> smn_cli.adapters.adapter.Adapter"',
        3: 'note: Revealed type is "float"',
        4: 'note: Revealed type is "def (self: smn_cli.adapters.adapter_set.AdapterSet, name: str) -> '
        'torch.nn.modules.module.Module"',
        5: 'note: Revealed type is "int"',
    }
    assert found.keys() == {2, 3, 4, 5, 6, 7}
    assert "[attr-defined]" in found[6]
    assert "[arg-type]" in found[7]
    assert "examples" not in done.stdout


@pytest.mark.real
def test_the_shell_example_goes_the_whole_road(
    lite0: Path, image_folder: Path, labeled_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "road"
    options = ["--batch-size", "8", "--steps", "2", "--size", "32", "--teacher-size", "32", "--keep", "last"]
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    command = ["bash", str(ROOT / "examples" / "road.sh"), image_folder, labeled_folder, lite0, out, *options]
    done = subprocess.run([str(word) for word in command], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in out.iterdir()} == {"run", "adapter.safetensors", "adapted.safetensors", "eval.json"}
