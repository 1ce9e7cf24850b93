"""A pretrained timm backbone, frozen, in eval mode, without its classifier."""

import copy
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import timm
import torch
from timm.data import resolve_model_data_config
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from smn_cli.backbones.fitting import read_fitting
from smn_cli.backbones.layouts import Preparation
from smn_cli.backbones.names import is_hub_name, tag_of
from smn_cli.backbones.reach import WITHOUT_HUB, check_weights_in_reach
from smn_cli.errors import BackboneError
from smn_cli.masking.ties import tied_names


@dataclass(frozen=True)
class Backbone:
    """A frozen network and what is known of it.

    Attributes:
        model: images (B, 3, H, W) to features (B, num_features); eval mode, no gradients.
        arch: timm name, without a tag.
        tag: timm's name of the pretrained weights, or hf-hub:USER/NAME; empty if they came from a file.
        num_features: width of the features.
        native_size: side of the images it was trained on, in pixels.
        mean, std, interpolation: how images are prepared for these weights, by timm or by those who made the file.
        classifier: the classifier's tensors that came with the weights, by timm name; may be empty.
        classifier_name: timm's name of the classifier if that is one linear layer with a bias over the features, else
            empty.
        takes_any_size: whether it was built with position embeddings that adjust to the image.
        notes: in words, what was done to make the weights fit.
        licence: of the weights as timm tells it; empty where it does not, and for a file.
    """

    model: nn.Module
    arch: str
    tag: str
    num_features: int
    native_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str
    classifier: dict[str, Tensor]
    takes_any_size: bool
    notes: tuple[str, ...] = ()
    classifier_name: str = ""
    licence: str = ""


def load_backbone(arch: str, weights: str | Path | None = None, *, is_run: bool = True) -> Backbone:
    """Build a timm network by name and load its pretrained weights.

    Args:
        arch: a timm name, with or without a tag ("resnet50", "resnet50.a1_in1k"), or a repository on the hub with a
            network of timm's ("hf-hub:timm/resnet50.a1_in1k").
        weights: a local file instead of timm's hub weights.
        is_run: false where only the state dict is wanted. A network of a file's weights is then not initialised, which
            takes longer than reading them, and must not be run, unless it is one of `PLAIN_RESNETS`: what no state dict
            holds is missing in it.

    Raises:
        BackboneError: the name is unknown, the hub cannot be reached, or the weights do not fit; the message names
            the first tensors that differ.
        FileError: the weights file is damaged.
    """
    check_arch(arch)
    model = None if is_run or weights is None else _outline(arch)
    if weights is None:
        check_weights_in_reach(arch)
    model = _create(arch, pretrained=weights is None) if model is None else model
    backbone = wrap_backbone(model, arch=None if is_hub_name(arch) else arch.partition(".")[0], owned=True)
    if weights is None:
        check_values(model.state_dict(), f"the weights of {arch}")
        return backbone
    found = read_fitting(Path(weights), backbone.arch, model, list(backbone.classifier))
    check_values({name: found.tensors[name] for name in model.state_dict() if name in found.tensors}, str(weights))
    _fill(model, found.tensors)
    classifier, notes = _own_classifier(backbone.classifier, found.tensors)
    described = _describe(model, backbone.arch, "", classifier, (*found.notes, *notes))
    described = replace(described, classifier_name=backbone.classifier_name)
    if "." in arch or is_hub_name(arch) or found.preparation is None:  # who names a tag says how images are prepared
        return described
    return _prepared_as(described, found.preparation)


def _own_classifier(
    expected: Mapping[str, Tensor], found: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The classifier of a file, of however many classes; none, and why, if its tensors are no such layer."""
    classifier = {name: found[name].float() for name in expected if name in found}
    kinds = {name: (tensor.ndim, tensor.shape[1:]) for name, tensor in expected.items()}
    odd = [name for name, tensor in classifier.items() if (tensor.ndim, tensor.shape[1:]) != kinds[name]]
    layers = {name: tensor for name, tensor in classifier.items() if tensor.ndim and name not in odd}
    lengths = {len(tensor) for tensor in layers.values()}
    if not odd and (len(lengths) <= 1 or len({len(expected[name]) for name in layers}) > 1):
        return classifier, ()
    shapes = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in classifier.items())
    return {}, (f"left out the file's classifier, whose tensors make no layer: {shapes}",)


def check_values(state: Mapping[str, Tensor], source: str) -> None:
    """Refuse weights that compute nothing: not finite, or a variance below zero.

    Raises:
        BackboneError: names the first such tensor of `source`.
    """
    for name, tensor in state.items():
        if not bool(tensor.isfinite().all()):
            raise BackboneError(f"{source}: {name} holds numbers that are infinite or none: get the weights again")
        if name.endswith("running_var") and bool((tensor < 0).any()):
            raise BackboneError(f"{source}: {name} holds a negative variance: get the weights again")


def wrap_backbone(model: nn.Module, *, arch: str | None = None, owned: bool = False) -> Backbone:
    """A timm model without its classifier, frozen, in eval mode, and what is known of it.

    Args:
        model: left as it is unless owned.
        arch: timm name, if it is known better than by the model.
        owned: whether the model itself may be changed; else a copy is, which takes its memory once more.

    Raises:
        BackboneError: the model is not timm's.
    """
    config = getattr(model, "pretrained_cfg", None)
    if not isinstance(config, dict) or not hasattr(model, "reset_classifier"):
        raise BackboneError(f"{type(model).__name__} is not a timm model: build it with timm.create_model")
    model = model if owned else copy.deepcopy(model)
    full = model.state_dict()
    _drop_classifier(model)
    left = model.state_dict().keys()
    classifier = {name: tensor.detach().clone() for name, tensor in full.items() if name not in left}
    name = _linear_name(config, classifier, feature_width(model))
    arch = arch or str(config.get("architecture", ""))
    tag, source, repository = (str(config.get(key) or "") for key in ("tag", "source", "hf_hub_id"))
    described = _describe(model, arch, tag_of(arch, tag, source, repository), classifier, ())
    return replace(described, classifier_name=name, licence=str(config.get("license") or ""))


def _describe(model: nn.Module, arch: str, tag: str, classifier: dict[str, Tensor], notes: tuple[str, ...]) -> Backbone:
    config = resolve_model_data_config(model)
    return Backbone(
        model=model.eval().requires_grad_(False),
        arch=arch,
        tag=tag,
        num_features=feature_width(model),
        native_size=int(config["input_size"][-1]),
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        interpolation=str(config["interpolation"]),
        classifier=classifier,
        takes_any_size=bool(getattr(model, "dynamic_img_size", False)),
        notes=notes,
    )


def _linear_name(config: dict[str, Any], classifier: dict[str, Tensor], num_features: int) -> str:
    """The classifier's name if a linear layer can stand there; of a network without one, what timm calls it."""
    told = config.get("classifier")
    if not classifier:
        return told if isinstance(told, str) else ""
    names = {name.rpartition(".")[0] for name in classifier}
    name = names.pop()
    weight = classifier.get(f"{name}.weight")
    is_linear = not names and len(classifier) == 2 and f"{name}.bias" in classifier and weight is not None
    return name if is_linear and weight is not None and weight.shape[1:] == (num_features,) else ""


def _prepared_as(backbone: Backbone, wanted: Preparation) -> Backbone:
    """With the preparation that a file's weights were trained with; a note says so if timm's is another."""
    own = Preparation(backbone.mean, backbone.std, backbone.interpolation)
    if wanted == own:
        return backbone
    note = (
        f"images are prepared as for these weights, mean {_short(wanted.mean)} and {wanted.interpolation}, "
        f"not as timm's {backbone.arch} with mean {_short(own.mean)} and {own.interpolation}"
    )
    notes = (*backbone.notes, note)
    return replace(backbone, mean=wanted.mean, std=wanted.std, interpolation=wanted.interpolation, notes=notes)


def _short(values: tuple[float, ...]) -> str:
    return "/".join(f"{value:.3f}".lstrip("0") for value in values)


def _drop_classifier(model: Any) -> None:
    model.reset_classifier(0)


def feature_width(model: Any) -> int:
    """F of a timm network without classifier."""
    # a few networks (MobileNetV3, VGG) widen their features after pooling
    return int(getattr(model, "head_hidden_size", None) or model.num_features)


def check_arch(arch: str) -> None:
    """Refuse what timm does not know by that name; what is on the hub shows when it is loaded.

    Raises:
        BackboneError: with the nearest names.
    """
    name = arch.partition(".")[0]
    if is_hub_name(arch) or timm.is_model(name):
        return
    near = timm.list_models(f"*{name}*")[:3] or get_close_matches(name, timm.list_models(), 3)
    hint = f"did you mean {', '.join(near)}?" if near else "see timm.list_models()"
    raise BackboneError(f"`arch` {arch} is not a timm model: {hint}")


def _create(arch: str, *, pretrained: bool) -> nn.Module:
    """The full model; a ViT with position embeddings that adjust, since views come in several sizes."""
    with _quiet("timm", "huggingface_hub"), warnings.catch_warnings():  # their retries end in the one error below
        warnings.simplefilter("ignore")  # timm's notes on renamed models are for its own users
        try:
            try:
                return timm.create_model(arch, pretrained=pretrained, dynamic_img_size=True)  # type: ignore[no-any-return]
            except TypeError:  # an architecture without that option
                return timm.create_model(arch, pretrained=pretrained)  # type: ignore[no-any-return]
        except Exception as error:  # the hub client raises dozens of kinds
            reason = (str(error) or type(error).__name__).strip().splitlines()[0]
            raise BackboneError(
                f"the pretrained weights of `arch` {arch} cannot be had ({reason}): {WITHOUT_HUB}"
            ) from None


class _NothingDrawn(TorchFunctionMode):
    """No random numbers are drawn inside: tensors without values need none, and torch would import its compiler."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return args[0] if func in (Tensor.normal_, Tensor.uniform_) else func(*args, **(kwargs or {}))


def _outline(arch: str) -> nn.Module | None:
    """The full model with shapes and types but no values; None if timm cannot build it so, or if it ties tensors.

    Tensors that are tied in the model would no longer be so once each name has been given its own.
    """
    try:
        with torch.device("meta"), _NothingDrawn():
            model = _create(arch, pretrained=False)
    except BackboneError:
        return None
    return None if tied_names(model) else model


def _fill(model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Load tensors by name; an outline takes copies, out of reach of a mapped file, and zeros for missing counters."""
    own = model.state_dict()
    if not any(tensor.is_meta for tensor in own.values()):
        model.load_state_dict({**own, **{name: tensors[name] for name in own if name in tensors}})
        return
    found = {
        name: tensors[name].to(tensor.dtype, copy=True) if name in tensors else torch.zeros_like(tensor, device="cpu")
        for name, tensor in own.items()
    }
    model.load_state_dict(found, assign=True)


def to_device(backbone: Backbone, device: str) -> None:
    """Put a backbone on a device, channels last, which convolutions like best."""
    backbone.model.to(torch.device(device)).to(memory_format=torch.channels_last)


@contextmanager
def _quiet(*names: str) -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def check_sizes(backbone: Backbone, sizes: list[int]) -> None:
    """Refuse view or image sizes that the network cannot take, before hours are spent.

    Args:
        backbone: as loaded.
        sizes: in pixels, square.

    Raises:
        BackboneError: a forward pass of that size fails.
    """
    device = next(backbone.model.parameters()).device
    for size in sizes:
        try:
            with torch.inference_mode():
                backbone.model(torch.zeros(2, 3, size, size, device=device))
        except (AssertionError, RuntimeError, ValueError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise BackboneError(f"{backbone.arch} cannot take images of {size} px ({reason}): set `size`") from None


def load_with_timm(arch: str, checkpoint: Path, num_classes: int) -> nn.Module:
    """What a user of plain timm gets from a checkpoint: the network in eval mode, then without its classifier."""
    model: nn.Module = timm.create_model(arch, num_classes=num_classes, checkpoint_path=str(checkpoint))
    _drop_classifier(model)
    return model.eval()
