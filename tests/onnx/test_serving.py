"""One base graph, many adapters: ONNX Runtime computes what torch does, and refuses what does not belong."""

import json
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file

from smn_cli.adapters.adapter import Adapter, load_adapter, make_adapter
from smn_cli.backbones.loading import load_backbone
from smn_cli.errors import BackboneError, FileError, MismatchError, UsageError
from smn_cli.onnx import OnnxBase
from smn_cli.onnx.export import export_adapters
from smn_cli.seeding import fixed_generator
from tests.adapters.forging import random_masks
from tests.conftest import CONVNET, Outcome

pytest.importorskip("onnxscript", reason="needs the onnx extra")
pytest.importorskip("onnxruntime", reason="needs the onnx extra")

Run = Callable[..., Outcome]
SIZE = 64
HOW = {"size": SIZE, "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.3], "interpolation": "bicubic"}


@pytest.fixture(scope="module")
def served(weights_file: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of `smn export` with two adapters; their files and the weights lie beside it."""
    folder = tmp_path_factory.mktemp("served")
    weights = weights_file(CONVNET)
    backbone = load_backbone(CONVNET, weights)
    state = backbone.model.state_dict()
    statistics = {name: tensor + 0.1 for name, tensor in state.items() if name.endswith("running_mean")}
    for number in range(2):
        masks = random_masks(state, density=0.8, seed=number)
        stats = statistics if number else {}
        made = make_adapter(state, masks, arch=CONVNET, norm_stats=stats, preprocessing=HOW)
        made.save(folder / f"tenant{number}.safetensors")
    files = [folder / f"tenant{number}.safetensors" for number in range(2)]
    export_adapters([load_adapter(path) for path in files], files, backbone, folder / "onnx")
    return folder


@pytest.fixture(scope="module")
def base(served: Path) -> OnnxBase:
    return OnnxBase(served / "onnx")


def network(weights: Path) -> torch.nn.Module:
    return load_backbone(CONVNET, weights).model.eval()


def images(num_images: int) -> torch.Tensor:
    return torch.rand(num_images, 3, SIZE, SIZE, generator=fixed_generator())


@torch.inference_mode()
def torch_features(model: torch.nn.Module, batch: torch.Tensor, adapter: Adapter | None = None) -> np.ndarray:
    with nullcontext() if adapter is None else adapter.applied(model):
        features: np.ndarray = model(batch).numpy()
    return features


@pytest.mark.parametrize("num_images", [1, 3])
def test_one_session_computes_base_and_adapters_in_turn(
    base: OnnxBase, served: Path, weights_file: Callable[[str], Path], num_images: int
) -> None:
    model, batch = network(weights_file(CONVNET)), images(num_images)
    files = [served / "onnx" / "adapters" / f"tenant{number}.safetensors" for number in range(2)]
    adapters = [None, *(base.adapter(path) for path in files)]
    expected = [torch_features(model, batch, None if path is None else load_adapter(path)) for path in (None, *files)]
    for _ in range(2):
        for adapter, features in zip(adapters, expected, strict=True):
            np.testing.assert_allclose(base.run(batch.numpy(), adapter), features, rtol=1e-4, atol=1e-5)
    assert np.abs(expected[1] - expected[2]).max() > 1e-2  # else a mix-up would not be seen


def test_onnx_runtimes_own_adapter_file(base: OnnxBase, served: Path, tmp_path: Path) -> None:
    import onnxruntime

    adapter = base.adapter(served / "tenant1.safetensors")
    adapter.save(tmp_path / "a.onnx_adapter")
    mapped = onnxruntime.LoraAdapter()
    mapped.Load(str(tmp_path / "a.onnx_adapter"))
    options = onnxruntime.RunOptions()
    options.add_active_adapter(mapped)
    batch = images(2).numpy()
    (features,) = base.session.run(None, {"images": batch}, options)
    np.testing.assert_array_equal(features, base.run(batch, adapter))


def test_weights_are_on_disk_once(served: Path) -> None:
    folder = served / "onnx"
    weights = (folder / "base.safetensors").stat().st_size
    assert (folder / "base.onnx").stat().st_size < weights / 4
    assert b".py" not in (folder / "base.onnx").read_bytes()  # where it was traced
    assert weights < 1.2 * sum(tensor.nbytes for tensor in load_file(folder / "base.safetensors").values())


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "I;16"])
@pytest.mark.parametrize("sides", [(SIZE, SIZE), (75, 131), (131, 75), (30, 47)])
def test_images_are_prepared_with_the_same_bits(
    base: OnnxBase, served: Path, mode: str, sides: tuple[int, int]
) -> None:
    levels = np.arange(sides[0] * sides[1] * 3, dtype=np.uint32).reshape(sides[1], sides[0], 3) * 2654435761 >> 24
    image = Image.fromarray(levels.astype(np.uint8))
    if mode == "I;16":
        image = Image.fromarray(levels[..., 0].astype(np.uint16) * 257)
    image = image if mode == "I;16" else image.convert(mode)
    expected = load_adapter(served / "tenant0.safetensors").transform()(image).numpy()
    np.testing.assert_array_equal(base.prepare(image), expected)


def test_an_adapter_of_another_base(base: OnnxBase, tmp_path: Path, weights_file: Callable[[str], Path]) -> None:
    state = load_backbone(CONVNET, weights_file(CONVNET)).model.state_dict()
    other = {name: tensor * 2 if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    made = make_adapter(other, random_masks(state, density=0.8, seed=0), arch=CONVNET, preprocessing=HOW)
    made.save(tmp_path / "o.safetensors")
    with pytest.raises(MismatchError, match=r"o\.safetensors is for another base than .*onnx"):
        base.adapter(tmp_path / "o.safetensors")


def test_an_adapter_of_weights_that_the_graph_holds_fixed(
    base: OnnxBase, tmp_path: Path, weights_file: Callable[[str], Path]
) -> None:
    state = load_backbone(CONVNET, weights_file(CONVNET)).model.state_dict()
    statistics = {name: tensor for name, tensor in state.items() if name.endswith("running_var")}
    masks = random_masks(state, density=0.8, seed=0)
    made = make_adapter(state, masks, arch=CONVNET, norm_stats=statistics, preprocessing=HOW)
    made.save(tmp_path / "more.safetensors")
    with pytest.raises(MismatchError, match=r"running_var.*fixed in"):
        base.adapter(tmp_path / "more.safetensors")


def test_a_folder_of_something_else(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="is it a folder of smn export"):
        OnnxBase(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(FileError, match=r"expected schema smn\.onnx/1"):
        OnnxBase(tmp_path)


def test_a_graph_that_computes_something_else_is_not_let_out(
    served: Path, tmp_path: Path, weights_file: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = load_backbone(CONVNET, weights_file(CONVNET))
    path = served / "tenant0.safetensors"
    right = OnnxBase.run
    monkeypatch.setattr(OnnxBase, "run", lambda self, *words: right(self, *words) * 1.01)
    with pytest.raises(BackboneError, match="computes other features than torch"):
        export_adapters([load_adapter(path)], [path], backbone, tmp_path / "onnx")
    assert list(tmp_path.iterdir()) == []


def test_adapters_for_images_of_two_sizes(served: Path, tmp_path: Path, weights_file: Callable[[str], Path]) -> None:
    backbone = load_backbone(CONVNET, weights_file(CONVNET))
    state = backbone.model.state_dict()
    masks = random_masks(state, density=0.8, seed=3)
    make_adapter(state, masks, arch=CONVNET, preprocessing={**HOW, "size": 96}).save(tmp_path / "large.safetensors")
    files = [served / "tenant0.safetensors", tmp_path / "large.safetensors"]
    with pytest.raises(UsageError, match=r"tenant0 64 px, large 96 px"):
        export_adapters([load_adapter(path) for path in files], files, backbone, tmp_path / "onnx")


def test_the_command_writes_a_plain_graph(
    served: Path, tmp_path: Path, run_cli: Run, weights_file: Callable[[str], Path]
) -> None:
    import onnxruntime

    words = ["export", served / "tenant1.safetensors", "--onnx", tmp_path / "plain", "--static"]
    outcome = run_cli(*words, "--weights", weights_file(CONVNET), "--json", "-")
    assert outcome.code == 0, outcome.err
    content = json.loads(outcome.out)
    assert content["schema"] == "smn.export/1"
    assert content["files"].keys() == {"model.onnx"}
    session = onnxruntime.InferenceSession(str(tmp_path / "plain" / "model.onnx"))
    assert [each.name for each in session.get_inputs()] == ["images"]
    assert session.get_overridable_initializers() == []
    batch = images(2)
    expected = torch_features(network(weights_file(CONVNET)), batch, load_adapter(served / "tenant1.safetensors"))
    np.testing.assert_allclose(session.run(["features"], {"images": batch.numpy()})[0], expected, rtol=1e-4, atol=1e-5)


def test_the_command_refuses_before_it_loads(served: Path, tmp_path: Path, run_cli: Run) -> None:
    files = [served / "tenant0.safetensors", served / "tenant1.safetensors"]
    outcome = run_cli("export", *files, "--onnx", tmp_path / "x", "--static")
    assert (outcome.code, "--static takes one adapter: found 2" in outcome.err) == (2, True)
    outcome = run_cli("export", *files, "--onnx", served)
    assert (outcome.code, "is there already" in outcome.err) == (2, True)


def test_no_torch_on_the_serving_machine(served: Path) -> None:
    import subprocess
    import sys

    code = (
        "import sys, numpy\nfrom PIL import Image\nfrom smn_cli.onnx import OnnxBase\n"
        f"base = OnnxBase({str(served / 'onnx')!r})\n"
        f"adapter = base.adapter({str(served / 'tenant0.safetensors')!r})\n"
        "base.run(base.prepare(Image.new('RGB', (80, 70)))[None], adapter)\n"
        "print([name for name in ('torch', 'timm', 'torchvision', 'onnx') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"


@pytest.mark.skipif(
    torch.__version__ < "2.7", reason="torch 2.6 writes some weights of a ViT transposed, without names"
)
def test_vision_transformers_too(tmp_path: Path, weights_file: Callable[[str], Path]) -> None:
    arch = "test_vit"
    backbone = load_backbone(arch, weights_file(arch))
    size = timm.get_pretrained_cfg(arch).input_size[-1]
    state = backbone.model.state_dict()
    masks = random_masks(state, density=0.8, seed=0)
    path = tmp_path / "vit.safetensors"
    make_adapter(state, masks, arch=arch, preprocessing={**HOW, "size": size}).save(path)
    made = export_adapters([load_adapter(path)], [path], backbone, tmp_path / "onnx")
    assert made.difference < 1e-4
    assert {*made.inputs} == {*masks}
