"""Weights of a file matched with a timm network: every tensor present and of the right shape, or a refusal."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
from torch import Tensor, nn

from smn_cli.backbones.guessing import guess_arch
from smn_cli.backbones.layouts import Layout, Preparation, Renamed, rename_to_timm
from smn_cli.backbones.weight_files import read_weight_file
from smn_cli.errors import BackboneError, FileError, first_few

_QUICK = "_clip_quickgelu_"


@dataclass(frozen=True)
class Fitting:
    """Tensors by timm's names, in words what was done to get at them, and how images were prepared for them."""

    tensors: dict[str, Tensor]
    notes: tuple[str, ...]
    preparation: Preparation | None


def read_fitting(path: Path, arch: str, model: nn.Module, classifier: list[str]) -> Fitting:
    """The weights of a file for a network.

    Args:
        path: the file.
        arch: the network's timm name, without a tag.
        model: the network without its classifier.
        classifier: names of the classifier's tensors, which may be missing.

    Raises:
        BackboneError: they do not fit; the message names the first tensors and, if it can be told, what fits.
        DataError: the file is missing.
        FileError: it is damaged.
    """
    own = model.state_dict()
    file = read_weight_file(path, wanted=own.keys())
    try:
        renamed = rename_to_timm(file.tensors, list(own), classifier)
    except ValueError as error:
        raise FileError(f"`weights` {path} cannot be renamed for timm: {error}") from None
    _check_fit(path, arch, own, renamed)
    notes = [*file.notes]
    if renamed.layout is not None:
        notes.append(_describe(renamed, renamed.layout))
        notes += _check_details(path, arch, model, renamed.layout)
    surplus = [name for name in renamed.tensors if name not in own and name not in classifier]
    if surplus:
        notes.append(f"left out {len(surplus)} tensors that {arch} does not have: {first_few(surplus, limit=3)}")
    return Fitting(renamed.tensors, tuple(notes), renamed.preparation)


def _check_fit(path: Path, arch: str, own: dict[str, Any], renamed: Renamed) -> None:
    tensors, layout = renamed.tensors, renamed.layout
    wrong = [
        f"{name} {tuple(tensors[name].shape)} instead of {tuple(own[name].shape)}"
        for name in own
        if name in tensors and tensors[name].shape != own[name].shape
    ]
    missing = [name for name in own if name not in tensors and not name.endswith("num_batches_tracked")]
    if not wrong and not missing:
        return
    what = f"has {first_few(wrong, limit=3)}" if wrong else f"lacks {first_few(missing, limit=3)}"
    better = guess_arch(tensors, is_quick_gelu=layout is not None and bool(layout.is_quick_gelu))
    kind = f"this is {layout.name}; " if layout is not None else ""
    hint = f"try `arch` {better}" if better not in (None, arch) else "is it of another architecture?"
    raise BackboneError(f"`weights` {path} does not fit {arch}: it {what}; {kind}{hint}")


def _check_details(path: Path, arch: str, model: Any, layout: Layout) -> list[str]:
    """What names and shapes do not show: attention heads and activations."""
    width, heads = layout.odd_heads or (0, 0)
    if getattr(model, "embed_dim", None) == width and (own := model.blocks[0].attn.num_heads) != heads:
        raise BackboneError(
            f"`weights` {path} does not fit {arch}: {layout.name.partition(',')[0]}'s ViT of width {width} has {heads} "
            f"attention heads, {arch} has {own}, and the features would be wrong; use a larger ViT of it"
        )
    if not layout.is_clip or (layout.is_quick_gelu and "quickgelu" in arch):
        return []
    other = arch.replace("_clip_quickgelu_", "_clip_") if "quickgelu" in arch else arch.replace("_clip_", _QUICK)
    if layout.is_quick_gelu:
        raise BackboneError(
            f"`weights` {path} does not fit {arch}: OpenAI's CLIP was trained with the quick GELU, "
            f"{arch} computes the exact one; try `arch` {other}"
        )
    where = f"; if this one is the other kind, take `arch` {other}" if timm.is_model(other) else ""
    return [f"the file does not tell its GELU: OpenAI and MetaCLIP trained with the quick one, LAION mostly not{where}"]


def _describe(renamed: Renamed, layout: Layout) -> str:
    note = f"renamed from the layout of {layout.name}"
    if renamed.left_out:
        groups = sorted(dict.fromkeys(_group(name) for name in renamed.left_out), key=lambda group: "." not in group)
        note += f"; left out {len(renamed.left_out)} other tensors: {first_few(groups, limit=5)}"
    return note


def _group(name: str) -> str:
    """What a left-out tensor is part of."""
    first, _, rest = name.partition(".")
    return f"{first}.{rest.partition('.')[0]}" if rest.startswith(("fc.", "head.", "proj")) else first
