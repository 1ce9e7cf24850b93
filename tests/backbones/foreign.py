"""State dicts in the layouts of other code bases, made from timm's; and a CLIP tower written from its description."""

import re
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

State = dict[str, Tensor]


def prefixed(prefix: str, state: State) -> State:
    """The same tensors under longer names."""
    return {prefix + name: tensor for name, tensor in state.items()}


def without(state: State, *heads: str) -> State:
    """All but the tensors whose names start with one of these."""
    return {name: tensor for name, tensor in state.items() if not name.startswith(heads)}


def swav(state: State) -> State:
    """As swav_800ep_pretrain.pth.tar."""
    head = {"projection_head.0.weight": torch.rand(8, 4), "projection_head.1.running_mean": torch.rand(8)}
    return prefixed("module.", {**without(state, "fc."), **head, "prototypes.weight": torch.rand(3, 4)})


def moco_v2(state: State) -> State:
    """As moco_v2_800ep_pretrain.pth.tar, with both encoders."""
    query = {**without(state, "fc."), "fc.0.weight": torch.rand(4, 4), "fc.2.bias": torch.rand(4)}
    key = {name: tensor + 1 for name, tensor in query.items()}
    queue = {"queue": torch.rand(4, 8), "queue_ptr": torch.zeros(1)}
    return prefixed("module.", {**prefixed("encoder_q.", query), **prefixed("encoder_k.", key), **queue})


def moco_v3(state: State) -> State:
    """As MoCo v3's checkpoints; the projector replaces the classifier."""
    base = without(state, "fc.", "head.")
    name = "fc" if "conv1.weight" in state else "head"
    base |= {f"{name}.0.weight": torch.rand(4, 4), f"{name}.1.running_var": torch.rand(4)}
    momentum = {name: tensor + 1 for name, tensor in base.items()}
    others = {**prefixed("momentum_encoder.", momentum), "predictor.0.weight": torch.rand(4, 4)}
    return prefixed("module.", {**prefixed("base_encoder.", base), **others})


def dino_half(state: State) -> State:
    """One of the two networks in DINO's full checkpoints."""
    head = {"head.mlp.0.weight": torch.rand(4, 4), "head.last_layer.weight_g": torch.rand(4, 1)}
    return {**prefixed("backbone.", without(state, "fc.", "head.")), **head}


def renamed(state: State, pairs: Sequence[tuple[str, str]]) -> State:
    """Every name after all replacements."""
    found = {}
    for name, tensor in state.items():
        new = name
        for pattern, replacement in pairs:
            new = re.sub(pattern, replacement, new)
        found[new] = tensor
    return found


def hugging_face_clip(state: State) -> State:
    """As openai/clip-vit-base-patch32, both towers."""
    pairs = [
        (r"^patch_embed\.proj\.", "embeddings.patch_embedding."),
        (r"^norm_pre\.", "pre_layrnorm."),
        (r"^norm\.", "post_layernorm."),
        (r"\.attn\.proj\.", ".self_attn.out_proj."),
        (r"\.norm(\d)\.", r".layer_norm\1."),
        (r"^blocks\.", "encoder.layers."),
    ]
    vision = renamed(without(state, "head."), pairs)
    vision["embeddings.class_embedding"] = vision.pop("cls_token")[0, 0]
    vision["embeddings.position_embedding.weight"] = vision.pop("pos_embed")[0]
    vision["embeddings.position_ids"] = torch.arange(len(vision["embeddings.position_embedding.weight"]))[None]
    for name in [name for name in vision if ".attn.qkv." in name]:
        parts = vision.pop(name).chunk(3)
        # by alphabet, so that the order in the file is not that of the parts
        for letter in "kqv":
            vision[name.replace("attn.qkv", f"self_attn.{letter}_proj")] = parts["qkv".index(letter)].clone()
    text = {"text_model.encoder.layers.0.self_attn.q_proj.weight": torch.rand(4, 4), "logit_scale": torch.tensor(1.0)}
    projections = {"visual_projection.weight": torch.rand(4, 4), "text_projection.weight": torch.rand(4, 4)}
    return {**prefixed("vision_model.", vision), **text, **projections}


class QuickGelu(nn.Module):
    """x sigmoid(1.702 x)."""

    def forward(self, x: Tensor) -> Tensor:
        """Elementwise."""
        return x * torch.sigmoid(1.702 * x)


class ClipBlock(nn.Module):
    """A residual attention block with OpenAI's names."""

    def __init__(self, width: int, heads: int, activation: nn.Module) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mlp = nn.Sequential()
        self.mlp.add_module("c_fc", nn.Linear(width, 4 * width))
        self.mlp.add_module("gelu", activation)
        self.mlp.add_module("c_proj", nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) to (B, N, D)."""
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, need_weights=False)[0]
        return x + self.mlp(self.ln_2(x))  # type: ignore[no-any-return]


class ClipVision(nn.Module):
    """CLIP's image tower of 12 heads before its projection: images (B, 3, 224, 224) to the class token (B, D)."""

    def __init__(self, activation: nn.Module, width: int, *, depth: int = 2, patch: int = 32) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, patch, patch, bias=False)
        self.class_embedding = nn.Parameter(torch.zeros(width))
        self.positional_embedding = nn.Parameter(torch.zeros((224 // patch) ** 2 + 1, width))
        self.ln_pre, self.ln_post = nn.LayerNorm(width), nn.LayerNorm(width)
        self.transformer = nn.Module()
        self.transformer.resblocks = nn.Sequential(*(ClipBlock(width, 12, activation) for _ in range(depth)))
        self.proj = nn.Parameter(torch.zeros(width, 512))

    def forward(self, images: Tensor) -> Tensor:
        """The normalised class token."""
        patches = self.conv1(images).flatten(2).transpose(1, 2)
        token = self.class_embedding.expand(len(images), 1, -1)
        x = self.ln_pre(torch.cat([token, patches], dim=1) + self.positional_embedding)
        x = self.transformer.resblocks(x)[:, 0]  # type: ignore[operator]
        return functional.layer_norm(x, x.shape[-1:], self.ln_post.weight, self.ln_post.bias)

    def file(self, *, is_openai: bool) -> State:
        """Its tensors as OpenAI's or open_clip's whole CLIP holds them."""
        text = {
            "positional_embedding": torch.rand(7, 4),
            "text_projection": torch.rand(4, 4),
            "logit_scale": torch.tensor(1.0),
            "transformer.resblocks.0.attn.in_proj_weight": torch.rand(12, 4),
            "ln_final.weight": torch.rand(4),
        }
        numbers = {"input_resolution": torch.tensor(224), "vocab_size": torch.tensor(49408)} if is_openai else {}
        return {**text, **prefixed("visual.", self.state_dict()), **numbers}
