"""On timm's features_only, below wrappers and in detectors an adapter does what it does to the whole network."""

import copy
import importlib.util
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

import smn_cli
from smn_cli.adapters.adapter import Adapter, adapter_from_bytes, make_adapter
from smn_cli.adapters.fingerprint import tensor_digest
from smn_cli.errors import AdapterFileError, LeftOutWarning, MismatchError
from tests.adapters.forging import random_masks, toy_base
from tests.adapters.test_adapter import same, snapshot
from tests.conftest import CONVNET, RESNET, VIT

STAGES = "test_convnext"
MAPS = {RESNET: 5, CONVNET: 5, STAGES: 4, VIT: 3}
ARCHS = [pytest.param(arch, marks=[] if arch in (RESNET, CONVNET) else pytest.mark.slow) for arch in MAPS]
IMAGES = torch.rand(2, 3, 160, 160, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def make(weights_file: Callable[[str], Path]) -> Callable[..., Any]:
    """A function from a timm name and options to its network with seeded weights."""

    def network(arch: str, **options: Any) -> Any:
        overlay = {"file": str(weights_file(arch)), "custom_load": False}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return timm.create_model(arch, pretrained=True, pretrained_cfg_overlay=overlay, **options).eval()

    return network


def adapter_of(
    whole: nn.Module, *, codec: str = "lzma", statistics: bool = False, arch: str = "any", tag: str = ""
) -> Adapter:
    """Over everything but the classifier, read back from its bytes, so that nothing is known of the base."""
    base = copy.deepcopy(whole)
    base.reset_classifier(0)  # type: ignore[operator]
    state = base.state_dict()
    masks = random_masks({name: state[name] for name, _ in base.named_parameters()}, density=0.8)
    moved = {name: tensor + 0.25 for name, tensor in state.items() if name.endswith("running_mean")}
    made = make_adapter(state, masks, arch=arch, tag=tag, codec=codec, norm_stats=moved if statistics else None)
    return adapter_from_bytes(made.to_bytes())


def maps_of(whole: Any, count: int) -> list[Tensor]:
    with torch.no_grad():
        found: list[Tensor] = whole.forward_intermediates(
            IMAGES, indices=count, intermediates_only=True, norm=False, output_fmt="NCHW"
        )
    return found


@pytest.mark.filterwarnings("ignore::smn_cli.errors.LeftOutWarning")
@pytest.mark.parametrize("arch", ARCHS)
def test_maps_of_features_only_are_those_of_the_whole_adapted_network(arch: str, make: Callable[..., Any]) -> None:
    whole, maps = make(arch), make(arch, features_only=True)
    adapter, before = adapter_of(whole, statistics=arch == CONVNET), snapshot(maps)
    with torch.no_grad():
        assert all(map(torch.equal, maps(IMAGES), maps_of(whole, MAPS[arch])))
        assert adapter.apply(maps) is maps
        adapter.apply(whole)
        expected = maps_of(whole, MAPS[arch])
        assert all(map(torch.equal, maps(IMAGES), expected))
    assert adapter.is_on(maps)
    smn_cli.remove_adapter(maps)
    assert same(snapshot(maps), before)
    with torch.no_grad(), adapter.applied(maps):
        assert all(map(torch.equal, maps(IMAGES), expected))
    assert same(snapshot(maps), before)


def test_what_is_left_out_is_said(make: Callable[..., Any]) -> None:
    whole, maps = make(CONVNET), make(CONVNET, features_only=True)
    adapter = adapter_of(whole, statistics=True)
    lost = ("conv_head.weight", "bn2.running_mean")
    with pytest.warns(
        LeftOutWarning, match=r"lacks 2 of the tensors .* \(conv_head\.weight, bn2\.running_mean\)"
    ) as caught:
        adapter.apply(maps)
    assert caught[0].filename == __file__
    place = adapter.placed_in(maps)
    assert (place.prefix, place.left_out, place.num_missing) == ("", lost, 5)
    assert not place.is_whole
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        adapter.apply(whole)
    assert adapter.placed_in(whole).is_whole
    assert adapter.placed_in(whole).left_out == ()
    assert repr(place) == f"Placement(prefix='', left_out={lost}, num_missing=5)"


def in_a_block(model: nn.Module, path: Path) -> None:
    with smn_cli.load_adapter(path).applied(model):
        pass


def out_of_a_set(model: nn.Module, path: Path) -> None:
    adapters = smn_cli.AdapterSet(model)
    adapters.add("one", path)
    adapters.use("one")


@pytest.mark.parametrize("put_on", [in_a_block, out_of_a_set, lambda *given: smn_cli.apply_adapter(*given)])
def test_the_warning_is_about_the_line_that_put_the_adapter_on(
    put_on: Callable[[nn.Module, Path], Any], make: Callable[..., Any], tmp_path: Path
) -> None:
    adapter_of(make(CONVNET), statistics=True).save(tmp_path / "a.safetensors")
    with pytest.warns(LeftOutWarning) as caught:
        put_on(make(CONVNET, features_only=True), tmp_path / "a.safetensors")
    assert {each.filename for each in caught} == {__file__}


class Detector(nn.Module):
    """As detection libraries build them: maps of a backbone, a neck, statistics that never change."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.neck = nn.Conv2d(32, 4, 1)

    def forward(self, images: Tensor) -> Tensor:
        maps: Tensor = self.neck(self.backbone(images)[0])
        return maps


def test_the_backbone_of_a_detector_is_found_and_the_rest_is_left_alone(make: Callable[..., Any]) -> None:
    adapter, detector = adapter_of(make(RESNET)), Detector(make(RESNET, features_only=True))
    neck, before = snapshot(detector.neck), snapshot(detector)
    adapter.apply(detector)
    assert adapter.placed_in(detector).prefix == "backbone."
    assert same(snapshot(detector.neck), neck)
    alone = adapter.apply(make(RESNET, features_only=True))
    assert same(snapshot(detector.backbone), snapshot(alone))
    assert same(snapshot(adapter.remove(detector)), before)
    adapter.apply(detector.backbone)
    assert same(snapshot(detector.backbone), snapshot(alone))


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("transformers") is None, reason="transformers is not installed")
@pytest.mark.filterwarnings("default")
def test_the_network_in_a_wrapper_of_transformers_is_found(make: Callable[..., Any]) -> None:
    import transformers

    whole, config = make(RESNET, num_classes=0), transformers.TimmWrapperConfig(architecture=RESNET)
    wrapper = transformers.TimmWrapperModel(config).eval()
    wrapper.timm_model.load_state_dict(whole.state_dict())
    adapter = adapter_of(whole)
    adapter.apply(wrapper)
    assert adapter.placed_in(wrapper).prefix == "timm_model."
    adapter.apply(whole)
    with torch.no_grad():
        torch.testing.assert_close(wrapper(IMAGES).pooler_output, whole(IMAGES))
    assert same(snapshot(wrapper.timm_model), snapshot(whole))


def test_a_classifier_below_a_name_is_put_in_too(make: Callable[..., Any]) -> None:
    from smn_cli.adapters.head import rounded_head
    from smn_cli.evaluation.classifier import LinearClassifier

    whole = make(RESNET, num_classes=3)
    base = {name: tensor for name, tensor in whole.state_dict().items() if not name.startswith("fc.")}
    classifier = LinearClassifier(torch.rand(3, whole.num_features), torch.rand(3))
    head = rounded_head(classifier, name="fc", classes=("a", "b", "c"))
    adapter = make_adapter(base, random_masks(base, density=0.8), arch=RESNET, head=head)
    wrapped = nn.ModuleDict({"timm_model": whole})
    adapter.apply(wrapped)
    assert torch.equal(whole.fc.weight, head.tensors()["fc.weight"])


@pytest.mark.parametrize("codec", ["context", "context2"])
def test_a_codec_that_needs_what_is_missing_asks_for_the_base(codec: str, make: Callable[..., Any]) -> None:
    whole, maps = make(CONVNET), make(CONVNET, features_only=True)
    adapter, before = adapter_of(whole, codec=codec), snapshot(maps)
    with pytest.raises(MismatchError, match=f"codec, {codec}, cannot be decoded, and it was made over a file: give"):
        adapter.apply(maps)
    assert same(snapshot(maps), before)
    expected = adapter_of(whole)
    for base in (whole, whole.state_dict()):
        fresh = adapter_from_bytes(adapter.to_bytes())
        with pytest.warns(LeftOutWarning):
            fresh.apply(maps, base)
        state = expected.rebuild(whole.state_dict())
        assert all(torch.equal(tensor, state[name]) for name, tensor in maps.state_dict().items())
        fresh.remove(maps)
    adapter.apply(whole)
    with pytest.warns(LeftOutWarning):
        adapter.apply(maps)  # what was decoded over the whole network is remembered


@pytest.mark.parametrize("arch", [RESNET, CONVNET])
def test_a_codec_that_needs_the_base_decodes_where_all_masked_tensors_are_there(
    arch: str, make: Callable[..., Any]
) -> None:
    whole = make(arch)
    adapter = adapter_of(whole, codec="context")
    part = nn.ModuleDict({"inner": make(arch, num_classes=0)})
    norm = "bn2" if arch == CONVNET else "bn1"
    setattr(part["inner"], norm, nn.Identity())  # not masked
    adapter.apply(part)
    state = adapter.rebuild(whole.state_dict())
    assert all(torch.equal(tensor, state[name[6:]]) for name, tensor in part.state_dict().items())


def test_other_weights_are_refused_by_name(make: Callable[..., Any]) -> None:
    adapter, maps = adapter_of(make(CONVNET)), make(CONVNET, features_only=True)
    name = "conv_stem.weight"
    recorded = tensor_digest(name, maps.state_dict()[name])[0]
    while tensor_digest(name, maps.state_dict()[name])[0] == recorded:
        maps.state_dict()[name][0] += 1
    before = snapshot(maps)
    with pytest.raises(MismatchError, match=r"of \d+ tensors of it that the network has 1 differ, first conv_stem"):
        adapter.apply(maps)
    assert same(snapshot(maps), before)
    other = timm.create_model(CONVNET, features_only=True)
    with pytest.raises(MismatchError, match=r"this base lacks 5 of them .* another architecture or another version"):
        adapter.apply(other)


def test_with_the_base_a_difference_that_the_file_s_byte_does_not_show_is_refused(make: Callable[..., Any]) -> None:
    whole, maps = make(CONVNET), make(CONVNET, features_only=True)
    adapter, name = adapter_of(whole), "bn1.bias"
    recorded, values = tensor_digest(name, maps.state_dict()[name]), maps.state_dict()[name]
    for _ in range(5000):
        values[0] += 0.125
        if tensor_digest(name, values)[0] == recorded[0]:
            break
    found = tensor_digest(name, values)
    assert found[0] == recorded[0]
    assert found != recorded
    with pytest.warns(LeftOutWarning):
        adapter.apply(maps)  # one in 256 is not seen by the file alone
    adapter.remove(maps)
    with pytest.raises(MismatchError, match=r"1 differ, first bn1\.bias"):
        adapter.apply(maps, whole)


def test_a_base_that_is_another_is_refused(make: Callable[..., Any]) -> None:
    adapter, maps = adapter_of(make(CONVNET)), make(CONVNET, features_only=True)
    with pytest.raises(MismatchError, match="was made for other weights"):
        adapter.apply(maps, timm.create_model(CONVNET))


def test_several_networks_inside_are_not_chosen_from(make: Callable[..., Any]) -> None:
    adapter = adapter_of(make(RESNET))
    both = nn.ModuleDict({"student": make(RESNET), "teacher": make(RESNET, features_only=True)})
    before = snapshot(both)
    with pytest.raises(MismatchError, match="holds several that the adapter could be for, 'student' and 'teacher'"):
        adapter.apply(both)
    assert same(snapshot(both), before)
    adapter.apply(both["student"])
    assert not adapter.is_on(both["teacher"])
    once = nn.ModuleDict({"model": make(RESNET)})
    once["again"] = once["model"]  # the same network by two names
    adapter.apply(once)
    assert same(snapshot(once["model"]), snapshot(both["student"]))


def test_a_network_without_any_masked_tensor_is_another(make: Callable[..., Any]) -> None:
    adapter = adapter_of(make(RESNET))
    for other in (nn.Linear(3, 2), nn.Sequential(nn.Conv2d(3, 4, 1)), make(CONVNET)):
        before = snapshot(other)
        with pytest.raises(MismatchError, match=r"another architecture|other weights"):
            adapter.apply(other)
        assert same(snapshot(other), before)


def test_adapters_of_a_set_are_switched_on_maps(make: Callable[..., Any]) -> None:
    whole, maps = make(CONVNET), make(CONVNET, features_only=True)
    adapter, before = adapter_of(whole), snapshot(maps)
    adapters = smn_cli.AdapterSet(maps)
    with pytest.warns(LeftOutWarning):
        adapters.add("one", adapter)
    with pytest.warns(LeftOutWarning):
        adapters.use("one")
    state = adapter.rebuild(whole.state_dict())
    assert all(torch.equal(tensor, state[name]) for name, tensor in maps.state_dict().items())
    adapters.off()
    assert same(snapshot(maps), before)


def test_a_header_that_promises_far_more_than_is_there_is_not_unpacked() -> None:
    base = toy_base()
    wide = {"conv.weight": base["conv.weight"], "fc.weight": torch.ones(200, 200)}
    masks = {name: torch.ones_like(tensor, dtype=torch.bool) for name, tensor in wide.items()}
    adapter = adapter_from_bytes(make_adapter(wide, masks, arch="toy", codec="lzma").to_bytes())
    convolution = nn.Conv2d(2, 3, 3, bias=False)
    convolution.load_state_dict({"weight": base["conv.weight"]})
    network = nn.ModuleDict({"conv": convolution})
    with pytest.raises(MismatchError, match="cannot be decoded"):
        adapter.apply(network)


def test_a_payload_that_lies_is_refused_on_a_part_too(make: Callable[..., Any]) -> None:
    from tests.adapters.forging import put_together, take_apart

    header, parts = take_apart(adapter_of(make(CONVNET)).to_bytes())
    header["masks"][0][2] -= 1
    maps = make(CONVNET, features_only=True)
    before = snapshot(maps)
    with pytest.warns(LeftOutWarning), pytest.raises(AdapterFileError, match="recorded"):
        adapter_from_bytes(put_together(header, parts)).apply(maps)
    assert same(snapshot(maps), before)
