"""What timm, transformers and segmentation_models_pytorch make of a written folder is the adapted network."""

import hashlib
import importlib.util
import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from smn_cli.adapters.adapter import load_adapter
from smn_cli.backbones.loading import load_backbone
from smn_cli.file_rebuild import RebuiltNetwork
from smn_cli.publishing.folder import write_folder
from smn_cli.rebuild import check_checkpoint, rebuild
from tests.conftest import CONVNET, RESNET, VIT, Outcome
from tests.publishing.conftest import NATIVE, Written, adapter_over

STAGES = "test_convnext"
ARCHS = [
    RESNET,
    pytest.param(CONVNET, marks=pytest.mark.slow),
    pytest.param(VIT, marks=pytest.mark.slow),
    pytest.param(STAGES, marks=pytest.mark.slow),
]


def same_state(model: nn.Module, other: dict[str, Tensor]) -> bool:
    state = model.state_dict()
    return state.keys() <= other.keys() and all(torch.equal(state[name], other[name]) for name in state)


@pytest.mark.parametrize("arch", ARCHS)
def test_timm_loads_the_adapted_network_whole_without_classifier_and_for_another_one(
    arch: str, written: Callable[[str, int], Written]
) -> None:
    made = written(arch, NATIVE)
    live, images = made.live(), made.images()
    state, logits = live.state_dict(), live(images)
    assert same_state(made.load(), state)
    assert torch.equal(made.load()(images), logits)
    without = made.load(num_classes=0)
    assert same_state(without, state)
    live.reset_classifier(0)  # type: ignore[operator]
    assert torch.equal(without(images), live(images))
    seven = made.load(num_classes=7)
    assert seven(images).shape == (2, 7)
    kept = {name for name in without.state_dict() if name in state}
    assert all(torch.equal(seven.state_dict()[name], state[name]) for name in kept)


def maps_of(model: nn.Module, images: Tensor) -> list[Tensor]:
    """The maps that timm lists, taken from the whole network by hooks at their modules."""
    taken: list[Tensor] = []
    for told in model.feature_info:  # type: ignore[union-attr]
        module = model.get_submodule(told["module"])
        module.register_forward_hook(lambda _module, _inputs, output: taken.append(output))
    with torch.no_grad():
        model(images)
    return taken


@pytest.mark.parametrize("arch", [RESNET, pytest.param(STAGES, marks=pytest.mark.slow)])
def test_maps_of_features_only_are_those_of_the_adapted_network(
    arch: str, written: Callable[[str, int], Written]
) -> None:
    made = written(arch, NATIVE)
    with torch.no_grad():
        maps = made.load(features_only=True)(made.images())
    expected = maps_of(made.live(), made.images())
    assert len(maps) == len(expected) >= 4
    assert all(map(torch.equal, maps, expected))
    plain = timm.create_model(made.arch, checkpoint_path=str(made.weights)).eval()
    assert not any(map(torch.equal, maps, maps_of(plain, made.images())))


@pytest.mark.slow
def test_maps_of_a_network_whose_head_is_left_out_and_of_a_vit(
    written: Callable[[str, int], Written], caplog: pytest.LogCaptureFixture
) -> None:
    for arch in (CONVNET, VIT):
        made = written(arch, NATIVE)
        with caplog.at_level(logging.ERROR), torch.no_grad():
            maps = made.load(features_only=True)(made.images())
            live: Any = made.live()
            expected = live.forward_intermediates(made.images(), indices=len(maps), intermediates_only=True, norm=False)
        assert len(maps) >= 3
        assert all(map(torch.equal, maps, expected))


@pytest.mark.parametrize("arch", [RESNET, pytest.param(VIT, marks=pytest.mark.slow)])
def test_the_config_prepares_images_as_the_adapter_does(arch: str, written: Callable[[str, int], Written]) -> None:
    made = written(arch, 96)
    adapter, config = load_adapter(made.file), json.loads((made.path / "config.json").read_text())
    prepared = timm.data.resolve_model_data_config(made.load(num_classes=0))
    told = adapter.preprocessing
    assert (tuple(prepared["mean"]), tuple(prepared["std"])) == (told.mean, told.std)
    assert (prepared["input_size"][1:], prepared["interpolation"]) == ([96, 96], "bilinear")
    assert "model_args" not in config or arch == VIT
    from PIL import Image

    image = Image.effect_noise((150, 120), 90).convert("RGB")
    ours, theirs = adapter.transform()(image), timm.data.create_transform(**prepared)(image)
    assert torch.equal(ours, theirs)


@pytest.mark.slow
def test_a_vit_is_what_it_was_at_a_size_that_is_not_its_own(written: Callable[[str, int], Written]) -> None:
    made = written(VIT, 96)
    live = load_backbone(VIT, made.weights).model
    load_adapter(made.file).apply(live)
    loaded = made.load(num_classes=0)
    assert same_state(loaded, live.state_dict())  # position embeddings, too, are those of its own size
    assert torch.equal(loaded(made.images()), live(made.images()))
    assert json.loads((made.path / "config.json").read_text())["model_args"] == {
        "img_size": NATIVE,
        "dynamic_img_size": True,
    }


def test_the_weights_are_those_that_the_adapter_recorded_and_the_page_says_whose(
    written: Callable[[str, int], Written],
) -> None:
    made = written(RESNET, NATIVE)
    adapter = load_adapter(made.file)
    check_checkpoint(adapter, made.path / "model.safetensors")
    page = (made.path / "README.md").read_text()
    file_digest = hashlib.sha256(made.file.read_bytes()).hexdigest()
    for told in (
        file_digest,
        adapter.header.base_digest,
        adapter.header.adapted_digest,
        "weights from a file",
        "not known",
    ):
        assert told in page
    assert page.startswith("---\nlibrary_name: timm\n")
    assert {path.name for path in made.path.iterdir()} == {"config.json", "model.safetensors", "README.md"}
    assert {path.name for path in made.path.parent.iterdir()} == {"a.safetensors", "net"}


def test_the_lines_of_the_page_run(written: Callable[[str, int], Written], monkeypatch: pytest.MonkeyPatch) -> None:
    made = written(RESNET, NATIVE)
    first = (made.path / "README.md").read_text().split("```python\n")[1].split("```")[0]
    from PIL import Image

    names: dict[str, Any] = {"image": Image.new("RGB", (99, 80))}
    exec(first.replace("DIR", str(made.path)), names)
    assert names["features"].shape == (1, names["model"].num_features)
    assert names["tuned"].num_classes == 7


def test_a_folder_without_classifier_gives_features(
    written: Callable[[str, int], Written], run_cli: Callable[..., Outcome], tmp_path: Path
) -> None:
    made = written(RESNET, NATIVE)
    words = ("apply", made.file, "--weights", made.weights, "--drop-classifier", "--json", "-", "--out")
    outcome = run_cli(*words, f"{tmp_path / 'net'}/")
    assert outcome.code == 0, outcome.err
    content = json.loads(outcome.out)
    assert (content["folder"], content["num_classes"]) == (str(tmp_path / "net"), 0)
    assert content["checkpoint"] == str(tmp_path / "net" / "model.safetensors")
    loaded = eval(content["load_with"], {"timm": timm})
    assert torch.equal(loaded.eval()(made.images()), made.load(num_classes=0)(made.images()))
    maps = timm.create_model(f"local-dir:{tmp_path / 'net'}", pretrained=True, features_only=True).eval()
    assert all(map(torch.equal, maps(made.images()), made.load(features_only=True)(made.images())))


def test_a_folder_of_a_supervised_adapter_names_its_classes(
    weights_file: Callable[[str], Path], tmp_path: Path
) -> None:
    adapter, backbone = adapter_over(RESNET, weights_file(RESNET), 96), load_backbone(RESNET, weights_file(RESNET))
    network = rebuild(adapter, backbone)
    classifier = {"fc.weight": torch.rand(2, backbone.num_features), "fc.bias": torch.rand(2)}
    learned = RebuiltNetwork({**network.state, **classifier}, 2, False, ("cat", "dog"))
    write_folder(tmp_path / "net", learned, adapter, backbone, file_digest="")
    model = timm.create_model(f"local-dir:{tmp_path / 'net'}", pretrained=True)
    assert torch.equal(model.state_dict()["fc.weight"], classifier["fc.weight"])
    assert model.pretrained_cfg["label_names"] == ["cat", "dog"]


@pytest.mark.slow
def test_an_expert_of_a_cascade_is_written_too(tmp_path: Path, run_cli: Callable[..., Outcome]) -> None:
    from smn_cli.adapters.adapter import adapter_from_bytes
    from smn_cli.cascade.file import save_cascade
    from tests.adapters.forging import put_together, take_apart
    from tests.cascade.small_cascades import SIZE, small_model, small_parts

    cascade, _ = small_parts()
    header, parts = take_apart(cascade.dispatcher.to_bytes())
    header["preprocessing"] = {"size": SIZE, "mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic"}
    dispatcher = adapter_from_bytes(put_together(header, parts))
    save_cascade(tmp_path / "cascade.safetensors", replace(cascade, dispatcher=dispatcher))
    save_file(small_model().state_dict(), tmp_path / "w.safetensors")
    words = ("--expert", "0", "--weights", tmp_path / "w.safetensors", "--out", f"{tmp_path / 'net'}/")
    outcome = run_cli("apply", tmp_path / "cascade.safetensors", *words)
    assert outcome.code == 0, outcome.err
    loaded = timm.create_model(f"local-dir:{tmp_path / 'net'}", pretrained=True)
    assert same_state(loaded, cascade.experts[0].rebuild(small_model().state_dict()) | loaded_counters(loaded))


def loaded_counters(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in model.state_dict().items() if name.endswith("num_batches_tracked")}


needs_transformers = pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None, reason="transformers is not installed"
)
needs_smp = pytest.mark.skipif(
    importlib.util.find_spec("segmentation_models_pytorch") is None,
    reason="segmentation_models_pytorch is not installed",
)


@pytest.mark.slow
@needs_transformers
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(("arch", "size"), [(RESNET, NATIVE), (CONVNET, NATIVE), (STAGES, NATIVE), (VIT, 96)])
def test_transformers_loads_it(arch: str, size: int, written: Callable[[str, int], Written]) -> None:
    import transformers

    made = written(arch, size)
    model = transformers.AutoModel.from_pretrained(made.path).eval()
    theirs = {name.removeprefix("timm_model."): tensor for name, tensor in model.state_dict().items()}
    ours = made.load(num_classes=0)
    assert same_state(ours, theirs)
    with torch.no_grad():
        found, wanted = model(made.images()).pooler_output, ours(made.images())
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)  # tensors of a mapped file lie elsewhere
    processor = transformers.AutoImageProcessor.from_pretrained(made.path)
    assert (processor.data_config["input_size"], processor.data_config["crop_pct"]) == ((3, size, size), 1.0)


@pytest.mark.slow
@needs_smp
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("arch", [RESNET, CONVNET, STAGES])
def test_segmentation_models_pytorch_takes_it_as_an_encoder(arch: str, written: Callable[[str, int], Written]) -> None:
    import segmentation_models_pytorch

    made = written(arch, NATIVE)
    model = segmentation_models_pytorch.Unet(f"tu-local-dir:{made.path}", encoder_weights=True, classes=7).eval()
    with torch.no_grad():
        found, wanted = model.encoder.model(made.images()), made.load(features_only=True)(made.images())
        assert model(made.images()).shape == (2, 7, NATIVE, NATIVE)
    assert all(map(torch.equal, found, wanted))


def test_the_file_of_weights_is_one_that_any_safetensors_library_opens(written: Callable[[str, int], Written]) -> None:
    made = written(RESNET, NATIVE)
    assert load_file(made.path / "model.safetensors").keys() == made.live().state_dict().keys()
