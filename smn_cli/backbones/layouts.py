"""Weights of other code bases under their own names, renamed to timm's: a layout is a row of a table."""

import re
from dataclasses import dataclass

import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, OPENAI_CLIP_MEAN, OPENAI_CLIP_STD
from torch import Tensor


@dataclass(frozen=True)
class Preparation:
    """How images were prepared for weights: mean and deviation of each channel in [0, 1], and the resizing."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str


_BILINEAR = Preparation(IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, "bilinear")
_BICUBIC = Preparation(IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, "bicubic")
_CLIP = Preparation(OPENAI_CLIP_MEAN, OPENAI_CLIP_STD, "bicubic")


@dataclass(frozen=True)
class Layout:
    """How one code base names its tensors.

    Attributes:
        name: in words.
        marks: expressions; each matches the start of some tensor's name.
        keep: matches the start of the backbone's names, and is cut off them; all other tensors are left out.
        renames: expressions and what replaces them, one after the other. Names that then end in #0, #1, ... are
            parts of one tensor.
        preparation: how its images were prepared; None if that cannot be known.
        odd_heads: width and attention heads of a ViT of it that has others than timm's of that width.
        is_clip: whether it is the image tower of a CLIP.
        is_quick_gelu: whether a CLIP was trained with the quick GELU; None if names do not tell.
    """

    name: str
    marks: tuple[str, ...]
    keep: str = ""
    renames: tuple[tuple[str, str], ...] = ()
    preparation: Preparation | None = None
    odd_heads: tuple[int, int] | None = None
    is_clip: bool = False
    is_quick_gelu: bool | None = None

    def matches(self, names: list[str]) -> bool:
        """Whether all marks are there."""
        return all(any(re.match(mark, name) for name in names) for mark in self.marks)

    def rename(self, name: str) -> str | None:
        """The name in timm, or None if the tensor is left out."""
        kept = re.match(self.keep, name)
        if kept is None:
            return None
        name = name[kept.end() :]
        for pattern, replacement in self.renames:
            name = re.sub(pattern, replacement, name)
        return name


_EFFICIENTNET = Layout("efficientnet-pytorch", (r"_conv_stem\.weight$", r"_blocks\.0\._depthwise_conv\.weight$"))
_ATTENTION = ((r"\.(?:self_attention|attn)\.in_proj_", ".attn.qkv."), (r"\.\w+\.out_proj\.", ".attn.proj."))
_OPEN_CLIP_NAMES = (
    (r"^class_embedding$", "cls_token"),
    (r"^positional_embedding$", "pos_embed"),
    (r"^conv1\.", "patch_embed.proj."),
    (r"^ln_pre\.", "norm_pre."),
    (r"^ln_post\.", "norm."),
    (r"^transformer\.resblocks\.", "blocks."),
    *_ATTENTION,
    (r"\.ln_(\d)\.", r".norm\1."),
    (r"\.mlp\.c_fc\.", ".mlp.fc1."),
    (r"\.mlp\.c_proj\.", ".mlp.fc2."),
)
_HUGGING_FACE_CLIP_NAMES = (
    (r"^embeddings\.class_embedding$", "cls_token"),
    (r"^embeddings\.position_embedding\.weight$", "pos_embed"),
    (r"^embeddings\.patch_embedding\.", "patch_embed.proj."),
    (r"^pre_layrnorm\.", "norm_pre."),
    (r"^post_layernorm\.", "norm."),
    (r"^encoder\.layers\.", "blocks."),
    *((rf"\.self_attn\.{part}_proj\.(\w+)$", rf".attn.qkv.\1#{place}") for place, part in enumerate("qkv")),
    *_ATTENTION,
    (r"\.layer_norm(\d)\.", r".norm\1."),
)
_TORCHVISION_VIT_NAMES = (
    (r"^class_token$", "cls_token"),
    (r"^conv_proj\.", "patch_embed.proj."),
    (r"^encoder\.pos_embedding$", "pos_embed"),
    (r"^encoder\.ln\.", "norm."),
    (r"^encoder\.layers\.encoder_layer_", "blocks."),
    *_ATTENTION,
    (r"\.ln_(\d)\.", r".norm\1."),
    (r"\.mlp\.(?:linear_1|0)\.", ".mlp.fc1."),
    (r"\.mlp\.(?:linear_2|3)\.", ".mlp.fc2."),
    (r"^heads\.head\.", "head."),
)

LAYOUTS = (
    Layout("SwAV", (r"conv1\.weight$", r"prototypes\."), r"(?!projection_head\.|prototypes\.|fc\.)", (), _BILINEAR),
    Layout("MoCo v1 or v2, encoder_q", (r"encoder_q\.conv1\.weight$",), r"encoder_q\.(?!fc\.)", (), _BILINEAR),
    Layout(
        "MoCo v3, base_encoder",
        (r"base_encoder\.(?:conv1|patch_embed)\b",),
        r"base_encoder\.(?!head\.|fc\.)",
        preparation=_BILINEAR,
        odd_heads=(384, 12),
    ),
    Layout(
        "DINO with its head",
        (r"backbone\.(?:conv1|patch_embed)\b", r"head\.(?:mlp|last_layer)\."),
        r"backbone\.",
        preparation=_BICUBIC,
    ),
    Layout(
        "OpenAI's CLIP",
        (r"visual\.ln_pre\.weight$", r"input_resolution$"),  # OpenAI's own files alone hold that number
        r"visual\.(?!proj$)",
        _OPEN_CLIP_NAMES,
        _CLIP,
        is_clip=True,
        is_quick_gelu=True,
    ),
    Layout(
        "CLIP as open_clip names it",
        (r"visual\.ln_pre\.weight$",),
        r"visual\.(?!proj$)",
        _OPEN_CLIP_NAMES,
        _CLIP,
        is_clip=True,
    ),
    Layout(
        "CLIP as Hugging Face names it",
        (r"(?:vision_model\.)?pre_layrnorm\.weight$",),
        r"(?:vision_model\.)?(?=embeddings\.(?!position_ids)|pre_layrnorm\.|encoder\.|post_layernorm\.)",
        _HUGGING_FACE_CLIP_NAMES,
        _CLIP,
        is_clip=True,
    ),
    Layout("torchvision's ViT", (r"encoder\.layers\.encoder_layer_0\.",), "", _TORCHVISION_VIT_NAMES, _BILINEAR),
)
"""The first that matches is taken."""

# DINO's and MAE's ViTs have timm's own names; those of timm have a classifier, and often another mean
_BARE_VIT = Layout("a ViT without classifier", (r"cls_token$", r"blocks\.0\.attn\.qkv\.weight$"))


@dataclass(frozen=True)
class Renamed:
    """Tensors under timm's names.

    Attributes:
        tensors: those that were kept.
        layout: where the names came from; None if nothing was known or needed.
        left_out: the file's names of the others, in its order.
        preparation: how images were prepared for these weights, if it is known.
    """

    tensors: dict[str, Tensor]
    layout: Layout | None = None
    left_out: tuple[str, ...] = ()
    preparation: Preparation | None = None


def rename_to_timm(tensors: dict[str, Tensor], own: list[str], classifier: list[str]) -> Renamed:
    """Find the layout of a state dict and bring it under timm's names.

    Args:
        tensors: a state dict as its file has it, common prefixes stripped.
        own: names of the timm model's state dict without its classifier, in its order.
        classifier: names of the classifier's tensors.

    Raises:
        ValueError: two tensors come to the same name, parts of one do not fit together, or the file holds several
            networks with these names.
    """
    names = list(tensors)
    if _EFFICIENTNET.matches(names) and len(tensors) == len(own) + len(classifier):
        # both define the layers in the order of the forward pass; shapes are compared when the weights are matched
        return Renamed(dict(zip([*own, *classifier], tensors.values(), strict=True)), _EFFICIENTNET)
    for layout in LAYOUTS:
        if layout.matches(names):
            renamed, left_out = _apply(layout, tensors)
            return Renamed(renamed, layout, left_out, layout.preparation)
    if names and _lacks(names, own, "") and (prefix := _only_prefix(names, own)):
        layout = Layout(f"a larger network, {prefix.rstrip('.')}", (), re.escape(prefix))
        renamed, left_out = _apply(layout, tensors)
        return Renamed(renamed, layout, left_out)
    is_bare_vit = _BARE_VIT.matches(names) and not any(re.match(r"norm_pre\.|head\.|fc_norm\.", name) for name in names)
    return Renamed(tensors, preparation=_BICUBIC if is_bare_vit else None)


def _apply(layout: Layout, tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    sources: dict[str, str] = {}
    for name in tensors:
        new = layout.rename(name)
        if new is None:
            continue
        if new in sources:
            raise ValueError(f"{sources[new]} and {name} are both {new}")
        sources[new] = name
    renamed = {new: _with_batch_axis(new, tensors[name]) for new, name in sources.items()}
    return _join_parts(renamed), tuple(name for name in tensors if name not in sources.values())


def _with_batch_axis(name: str, tensor: Tensor) -> Tensor:
    """timm's class token is (1, 1, D) and its position embeddings (1, N, D)."""
    is_embedding = name in ("cls_token", "pos_embed")
    return tensor[(None,) * (3 - tensor.ndim)] if is_embedding and tensor.ndim < 3 else tensor


def _join_parts(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Queries, keys and values become one tensor, in this order; a missing part leaves it missing."""
    joined = {name: tensor for name, tensor in tensors.items() if "#" not in name}
    for name in sorted({name.partition("#")[0] for name in tensors if "#" in name}):
        parts = [tensors[part] for place in range(3) if (part := f"{name}#{place}") in tensors]
        if name in joined:
            raise ValueError(f"{name} is there whole and in parts")
        if len(parts) < 3:
            continue
        if any(part.ndim == 0 or part.shape != parts[0].shape for part in parts):
            raise ValueError(f"the queries, keys and values of {name} differ in shape")
        joined[name] = torch.cat(parts)
    return joined


def _lacks(names: list[str], own: list[str], prefix: str) -> bool:
    have = set(names)
    return any(prefix + name not in have for name in own if not name.endswith("num_batches_tracked"))


def _only_prefix(names: list[str], own: list[str]) -> str:
    """The one prefix under which all of a model's names are found; empty if there is none."""
    ends = [name.removesuffix(own[0]) for name in names if name.endswith("." + own[0])]
    found = [prefix for prefix in dict.fromkeys(ends) if not _lacks(names, own, prefix)]
    if len(found) > 1:
        raise ValueError(f"it holds several such networks, under {' and '.join(found)}: save the one you want alone")
    return found[0] if found else ""
