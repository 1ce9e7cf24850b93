"""Published layouts give the features of the network they were saved from; what cannot fit says what it is."""

from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn

from smn_cli.backbones.layouts import rename_to_timm
from smn_cli.backbones.loading import Backbone, load_backbone
from smn_cli.errors import BackboneError, FileError
from tests.backbones.foreign import (
    ClipVision,
    QuickGelu,
    State,
    dino_half,
    hugging_face_clip,
    moco_v2,
    moco_v3,
    prefixed,
    swav,
    without,
)
from tests.conftest import RESNET, random_weights

IMAGENET, CLIP = (0.485, 0.456, 0.406), (0.48145466, 0.4578275, 0.40821073)
VIT, CLIP_VIT, QUICK_VIT = "vit_base_patch16_224", "vit_base_patch32_clip_224", "vit_base_patch32_clip_quickgelu_224"


WIDTH = 96


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks with the names and heads of the real ones, but fewer channels and blocks, so that files are small."""
    create = timm.create_model

    def create_narrow(arch: str, **options: Any) -> nn.Module:
        if arch.startswith("vit"):
            options |= {"depth": 2, "embed_dim": 384 if "small" in arch else WIDTH}
        elif arch.startswith("resnet18"):
            options |= {"channels": (64, 16, 32, 32)}
        network: nn.Module = create(arch, **options)
        return network

    monkeypatch.setattr(timm, "create_model", create_narrow)


def randomised(model: nn.Module) -> nn.Module:
    """No two tensors alike, so that none can be taken for another; in eval mode."""
    for name, tensor in model.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 1.5)
        elif tensor.is_floating_point():
            tensor.normal_(0, 0.5 if tensor.ndim < 2 else 0.04)
    return model.eval()


def source(arch: str) -> tuple[nn.Module, State]:
    """A timm network of random weights without its classifier, and its full state dict."""
    model = randomised(timm.create_model(arch, pretrained=False))
    state = model.state_dict()
    model.reset_classifier(0)  # type: ignore[operator]
    return model, state


def saved(path: Path, content: dict[str, Any]) -> Path:
    """A safetensors file or a PyTorch archive, by the name."""
    save_file(content, path) if path.suffix == ".safetensors" else torch.save(content, path)
    return path


def outputs(*models: nn.Module) -> list[Tensor]:
    """Features of the same images."""
    images = torch.rand(1, 3, 224, 224)
    with torch.inference_mode():
        return [model(images) for model in models]


def said(backbone: Backbone) -> str:
    """All notes in one."""
    return " | ".join(backbone.notes)


RESNET_LAYOUTS: dict[str, tuple[Callable[[State], dict[str, Any]], str, str]] = {
    "swav": (swav, "SwAV; left out 3 other tensors: projection_head, prototypes", "bilinear"),
    "swav training": (
        lambda state: {"epoch": 3, "state_dict": swav(state), "optimizer": {}},
        "SwAV; left out 3 other tensors: projection_head, prototypes",
        "bilinear",
    ),
    "moco v2": (
        lambda state: {"epoch": 3, "arch": "resnet50", "state_dict": moco_v2(state)},
        "MoCo v1 or v2, encoder_q; left out 126 other tensors: encoder_q.fc, encoder_k.fc, encoder_k, queue, queue_ptr",
        "bilinear",
    ),
    "moco v3": (
        lambda state: {"state_dict": moco_v3(state)},
        "MoCo v3, base_encoder; left out 125 other tensors: base_encoder.fc, momentum_encoder.fc, momentum_encoder",
        "bilinear",
    ),
    "dino": (
        lambda state: {
            "student": prefixed("module.", dino_half({name: tensor + 1 for name, tensor in state.items()})),
            "teacher": dino_half(state),
            "args": Namespace(arch="resnet50", lr=0.3, crops=[1, 2]),
        },
        "DINO with its head; left out 2 other tensors: head",
        "bicubic",
    ),
    "lightning": (
        lambda state: {
            "state_dict": {**prefixed("online.net.", without(state, "fc.")), "projector.0.weight": torch.rand(2, 2)}
        },
        "a larger network, online.net; left out 1 other tensors: projector",
        "bicubic",
    ),
}


@pytest.mark.slow
@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize("name", RESNET_LAYOUTS)
def test_resnets_of_published_layouts_have_their_features(name: str, tmp_path: Path) -> None:
    make, words, interpolation = RESNET_LAYOUTS[name]
    model, state = source("resnet18")
    backbone = load_backbone("resnet18", saved(tmp_path / "w.pth.tar", make(state)))
    expected, found = outputs(model, backbone.model)
    assert torch.equal(found, expected)
    assert f"renamed from the layout of {words}" in said(backbone)
    assert (backbone.mean, backbone.interpolation) == (IMAGENET, interpolation)
    assert backbone.classifier == {}


@pytest.mark.slow
def test_a_whole_resnet50_of_swav_has_its_2048_features(tmp_path: Path) -> None:
    model, state = source("resnet50")
    backbone = load_backbone("resnet50", saved(tmp_path / "swav_800ep_pretrain.pth.tar", swav(state)))
    expected, found = outputs(model, backbone.model)
    assert torch.equal(found, expected)
    assert found.shape == (1, 2048)
    assert backbone.notes == (
        "stripped the prefix 'module.'",
        "renamed from the layout of SwAV; left out 3 other tensors: projection_head, prototypes",
        "images are prepared as for these weights, mean .485/.456/.406 and bilinear, "
        "not as timm's resnet50 with mean .485/.456/.406 and bicubic",
    )


def test_the_teacher_is_taken_and_it_is_said(tmp_path: Path) -> None:
    content = {"student": dino_half(random_weights(RESNET, seed=1)), "teacher": dino_half(random_weights(RESNET))}
    backbone = load_backbone(RESNET, saved(tmp_path / "w.pth", content))
    assert "took the weights under 'teacher' (not 'student')" in said(backbone)


def test_torchvisions_resnets_need_no_renaming(tmp_path: Path) -> None:
    model = randomised(torchvision.models.resnet18())
    backbone = load_backbone("resnet18", saved(tmp_path / "w.pth", model.state_dict()))
    assert backbone.notes == ()
    assert backbone.classifier.keys() == {"fc.weight", "fc.bias"}
    model.fc = nn.Identity()
    expected, found = outputs(model, backbone.model)
    assert torch.equal(found, expected)


@pytest.mark.usefixtures("narrow")
def test_moco_v3s_large_vit_has_timms_heads(tmp_path: Path) -> None:
    large = "vit_large_patch32_224"
    path = saved(tmp_path / "vit-l.pth.tar", {"state_dict": moco_v3(source(large)[1])})
    assert load_backbone(large, path).num_features == WIDTH


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize("layout", ["alone", "full", "moco v3"])
def test_self_supervised_vits_have_their_features_and_imagenets_mean(layout: str, tmp_path: Path) -> None:
    model, state = source(VIT)
    files: dict[str, dict[str, Any]] = {
        "alone": without(state, "head."),
        "full": {"student": {}, "teacher": dino_half(state)},
        "moco v3": {"state_dict": moco_v3(state)},
    }
    backbone = load_backbone(VIT, saved(tmp_path / "w.pth", files[layout]))
    expected, found = outputs(model, backbone.model)
    assert torch.equal(found, expected)
    assert backbone.mean == IMAGENET
    assert "mean .485/.456/.406" in said(backbone)
    assert "not as timm's vit_base_patch16_224 with mean .500/.500/.500" in said(backbone)


@pytest.mark.usefixtures("narrow")
def test_vits_of_timm_itself_and_named_tags_keep_timms_mean(tmp_path: Path) -> None:
    state = source(VIT)[1]
    whole, bare = saved(tmp_path / "a.pth", {"model": state}), saved(tmp_path / "b.pth", without(state, "head."))
    assert load_backbone(VIT, whole).mean == (0.5, 0.5, 0.5)
    assert load_backbone(f"{VIT}.augreg_in21k", bare).mean == (0.5, 0.5, 0.5)
    assert load_backbone(f"{VIT}.dino", whole).mean == IMAGENET


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize("is_old", [False, True])
def test_torchvisions_vit_computes_the_same_in_timm(tmp_path: Path, is_old: bool) -> None:
    model = randomised(torchvision.models.VisionTransformer(224, 16, 2, 12, WIDTH, 4 * WIDTH))
    state = model.state_dict()
    if is_old:  # the published files are older than the names of today's torchvision
        pairs = {".mlp.0.": ".mlp.linear_1.", ".mlp.3.": ".mlp.linear_2."}
        for new, old in pairs.items():
            state = {name.replace(new, old): tensor for name, tensor in state.items()}
    backbone = load_backbone(VIT, saved(tmp_path / "vit_b_16.pth", state))
    head = backbone.classifier
    assert torch.equal(head["head.weight"], state["heads.head.weight"])
    logits, features = outputs(model, backbone.model)
    torch.testing.assert_close(features @ head["head.weight"].T + head["head.bias"], logits, rtol=1e-4, atol=1e-3)
    assert (backbone.mean, backbone.interpolation) == (IMAGENET, "bilinear")


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize(
    ("arch", "activation", "is_openai"),
    [(QUICK_VIT, QuickGelu(), True), (QUICK_VIT, QuickGelu(), False), (CLIP_VIT, nn.GELU(), False)],
)
def test_clips_image_tower_gives_the_class_token_before_its_projection(
    arch: str, activation: nn.Module, is_openai: bool, tmp_path: Path
) -> None:
    model = randomised(ClipVision(activation, WIDTH))
    backbone = load_backbone(arch, saved(tmp_path / "clip.pt", model.file(is_openai=is_openai)))  # type: ignore[operator]
    expected, found = outputs(model, backbone.model)
    assert found.shape == (1, WIDTH)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert (backbone.mean, backbone.interpolation) == (CLIP, "bicubic")
    assert "visual.proj" in said(backbone)
    assert ("the file does not tell its GELU" in said(backbone)) == (not is_openai)


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize("is_tower_alone", [False, True])
def test_clip_as_hugging_face_names_it_has_its_features(is_tower_alone: bool, tmp_path: Path) -> None:
    model, state = source(QUICK_VIT)
    file = hugging_face_clip(state)
    if is_tower_alone:
        file = {name: tensor for name, tensor in file.items() if name.startswith("vision_model.")}
    backbone = load_backbone(QUICK_VIT, saved(tmp_path / "model.safetensors", file))
    expected, found = outputs(model, backbone.model)
    assert torch.equal(found, expected)
    assert backbone.mean == CLIP
    assert f"take `arch` {CLIP_VIT}" in said(backbone)


@pytest.mark.usefixtures("narrow")
def test_a_clip_trained_with_the_quick_gelu_is_refused_by_the_exact_one(tmp_path: Path) -> None:
    path = saved(tmp_path / "clip.pth", ClipVision(QuickGelu(), WIDTH).file(is_openai=True))
    with pytest.raises(BackboneError, match=rf"trained with the quick GELU.*; try `arch` {QUICK_VIT}"):
        load_backbone(CLIP_VIT, path)


@pytest.mark.usefixtures("narrow")
def test_a_clip_without_some_keys_lacks_the_joined_tensor(tmp_path: Path) -> None:
    file = hugging_face_clip(source(QUICK_VIT)[1])
    del file["vision_model.encoder.layers.1.self_attn.k_proj.weight"]
    with pytest.raises(BackboneError, match=r"it lacks blocks\.1\.attn\.qkv\.weight; this is CLIP as"):
        load_backbone(QUICK_VIT, saved(tmp_path / "w.safetensors", file))


@pytest.mark.usefixtures("narrow")
def test_moco_v3s_small_vit_is_refused_for_its_heads(tmp_path: Path) -> None:
    small = "vit_small_patch16_224"
    path = saved(tmp_path / "vit-s.pth.tar", {"state_dict": moco_v3(source(small)[1])})
    with pytest.raises(
        BackboneError, match="MoCo v3's ViT of width 384 has 12 attention heads, vit_small_patch16_224 has 6"
    ):
        load_backbone(small, path)


def test_a_file_of_another_architecture_says_what_it_is(tmp_path: Path) -> None:
    state = source("vit_tiny_patch16_224")[1]
    path = saved(tmp_path / "dino.pth", {"student": {}, "teacher": dino_half(state)})
    with pytest.raises(
        BackboneError, match=r"lacks conv1.*; this is DINO with its head; try `arch` vit_tiny_patch16_224"
    ):
        load_backbone("resnet18", path)
    path = saved(tmp_path / "swav.pth", swav(source("resnet18")[1]))
    with pytest.raises(BackboneError, match=r"does not fit resnet34.*; this is SwAV; try `arch` resnet18"):
        load_backbone("resnet34", path)


def test_two_networks_of_one_kind_are_not_chosen_between(tmp_path: Path) -> None:
    state, other = random_weights(RESNET), random_weights(RESNET, seed=1)
    path = saved(tmp_path / "w.safetensors", {**prefixed("a.", state), **prefixed("b.", other)})
    with pytest.raises(FileError, match=r"holds several such networks, under a\. and b\.: save the one you want"):
        load_backbone(RESNET, path)


def test_names_that_meet_and_parts_that_differ_are_refused() -> None:
    twice = {"pre_layrnorm.weight": torch.rand(2), "vision_model.pre_layrnorm.weight": torch.rand(2)}
    with pytest.raises(ValueError, match=r"pre_layrnorm.weight and vision_model.pre_layrnorm.weight are both norm_pre"):
        rename_to_timm(twice, ["norm_pre.weight"], [])
    stem, shapes = "encoder.layers.0.self_attn", {"q": (2, 2), "k": (3, 2), "v": ()}
    parts = {f"{stem}.{letter}_proj.weight": torch.rand(shape) for letter, shape in shapes.items()}
    with pytest.raises(ValueError, match=r"queries, keys and values of blocks\.0\.attn\.qkv\.weight differ in shape"):
        rename_to_timm({"pre_layrnorm.weight": torch.rand(2), **parts}, ["norm_pre.weight"], [])
    whole = {"encoder.layers.0.attn.qkv.weight": torch.rand(6, 2)}
    with pytest.raises(ValueError, match="is there whole and in parts"):
        rename_to_timm({"pre_layrnorm.weight": torch.rand(2), **parts, **whole}, ["norm_pre.weight"], [])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_a_torchscript_archive_says_how_to_get_its_weights(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), str(tmp_path / "ViT-B-32.pt"))
    with pytest.raises(FileError, match=r"is a TorchScript archive, as OpenAI publishes CLIP.*torch\.jit\.load"):
        load_backbone(QUICK_VIT, tmp_path / "ViT-B-32.pt")
