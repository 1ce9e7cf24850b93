"""The examples run as they stand; what needs another service is at least well formed."""

import os
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

from smn_cli.errors import BackboneError

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent


@pytest.fixture
def lite0() -> Path:
    from smn_cli.backbones.packaged import lite0_weights

    try:
        return lite0_weights()
    except BackboneError as error:
        pytest.skip(str(error))


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
    spec = spec_from_file_location("python_api", ROOT / "examples" / "python_api.py")
    assert spec is not None
    assert spec.loader is not None
    example = module_from_spec(spec)
    spec.loader.exec_module(example)
    settings = {"batch_size": 8, "steps": 3, "size": 32, "teacher_size": 48, "keep": "last"}
    example.main(str(image_folder), str(weights), str(tmp_path / "a.safetensors"), **settings)
    out = capsys.readouterr().out
    assert "adapted outputs differ from the base: True" in out
    assert "removed again, bit for bit: True" in out


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


def test_the_ci_example_uses_commands_and_options_that_exist() -> None:
    import typer.main

    from smn_cli.cli import app

    text = (ROOT / "examples" / "ci-gate.yml").read_text()
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    used = text.split("smn eval labeled/")[1].split("- uses")[0]
    options = {option for parameter in commands["eval"].params for option in parameter.opts}
    named = {word for word in used.split() if word.startswith("--")}
    assert named == {"--adapter", "--weights", "--knn", "--fail-under", "--min-gain", "--json"}
    assert named <= options
