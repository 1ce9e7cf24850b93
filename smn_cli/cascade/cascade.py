"""A cascade in memory: what it is made of, and the features it gives to images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from smn_cli.adapters.adapter import Adapter
from smn_cli.adapters.container import seal
from smn_cli.cascade.combining import MODES, Combination
from smn_cli.cascade.expert import Expert, make_expert
from smn_cli.cascade.router import Router
from smn_cli.cascade.schema import CascadeHeader, ExpertEntry
from smn_cli.errors import UsageError
from smn_cli.recognise import CASCADE_TENSOR

MAX_STATISTICS = 1 << 27
"""Of all experts together: a quarter of a gigabyte, which a file of a few kilobytes could promise many times over."""


@dataclass(frozen=True)
class Cascade:
    """Dispatcher, experts, router and combination over one base.

    Attributes:
        dispatcher: the adapter whose features are routed.
        experts: one a cluster, in the router's order.
        router: sends an image to an expert; of the training images.
        combination: how features become one vector; of the training images.
        provenance: where it comes from; plain values, for people.
    """

    dispatcher: Adapter
    experts: tuple[Expert, ...]
    router: Router
    combination: Combination
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_statistics(self.dispatcher, [expert.entry for expert in self.experts])
        if len(self.experts) != self.router.num_experts or not self.experts:
            raise UsageError(f"{len(self.experts)} experts do not fit a router of {self.router.num_experts}")
        if self.combination.num_blocks != len(self.experts) + 1:
            raise UsageError(
                f"a combination of {self.combination.num_blocks} blocks does not fit a dispatcher and "
                f"{len(self.experts)} experts"
            )
        if self.combination.num_features != self.router.num_features:
            raise UsageError(
                f"a router of {self.router.num_features} features does not fit a combination of "
                f"{self.combination.num_features}"
            )

    @property
    def mode(self) -> str:
        """ "conditional" or "unconditional", as its combination was fitted."""
        return self.combination.mode

    def embed(self, model: nn.Module, images: Tensor, *, mode: str | None = None) -> Tensor:
        """Features of a batch.

        Args:
            model: the base without its classifier (`num_classes=0`), in eval mode; adapters go onto it in turn, and it
                is left as the base.
            images: (N, 3, H, W) float32, prepared, on the model's device.
            mode: "conditional": the dispatcher's forward and one expert's for each image; "unconditional": all
                experts'. None is the cascade's own; another one only where the combination stores nothing.

        Returns:
            (N, dim) float32 on the CPU: the same bits for the same batch, and to rounding for an image in any other.

        Raises:
            MismatchError, AdapterFileError: the model is not the base.
            UsageError: the stored combination is for the other mode, or the model gives no features of its width.
        """
        combination = self.combination_for(mode or self.mode)
        try:
            first = _features(self.dispatcher, model, images)
            if first.shape != (len(images), combination.num_features):
                raise UsageError(
                    f"the model gives {tuple(first.shape)} for {len(images)} images: expected features of width "
                    f"{combination.num_features}; make it without its classifier (num_classes=0)"
                )
            routes = self.router.route(first) if combination.mode == "conditional" else None
            blocks = [first]
            for number, expert in enumerate(self.experts):
                chosen = torch.ones(len(images), dtype=torch.bool) if routes is None else routes == number
                block = torch.zeros_like(first)
                if chosen.any():
                    block[chosen] = _features(expert, model, images[chosen.to(images.device)])
                blocks.append(block)
        finally:
            self.dispatcher.remove(model)
        return combination.combine(blocks, routes)

    def combination_for(self, mode: str) -> Combination:
        """Its combination, or one that stores nothing in the other mode.

        Raises:
            UsageError: unknown mode, or the stored combination is for the other one.
        """
        if mode not in MODES:
            raise UsageError(f"mode {mode!r} is unknown: expected one of {', '.join(MODES)}")
        if mode != self.mode and self.combination.kind != "none":
            raise UsageError(f"the cascade's combination {self.combination.kind!r} was fitted for {self.mode} features")
        return replace(self.combination, mode=mode)

    @property
    def header(self) -> CascadeHeader:
        """What the file says of itself."""
        return CascadeHeader(
            mode=self.mode,
            router_kind=self.router.kind,
            combination_kind=self.combination.kind,
            dim=self.combination.dim,
            seed=self.combination.seed,
            experts=tuple(expert.entry for expert in self.experts),
            provenance=self.provenance,
        )

    def to_bytes(self) -> bytes:
        """The cascade file's bytes, a function of its content alone."""
        coded = b"".join(expert.coded for expert in self.experts)
        tensors = {
            CASCADE_TENSOR: np.frombuffer(self.dispatcher.to_bytes(), dtype=np.uint8),
            "experts": np.frombuffer(coded, dtype=np.uint8),
            **{f"router.{name}": tensor.contiguous().numpy() for name, tensor in self.router.tensors.items()},
            **{f"combination.{name}": tensor.contiguous().numpy() for name, tensor in self.combination.tensors.items()},
        }
        return seal(tensors, self.header.to_json())

    def sizes(self) -> dict[str, int]:
        """Bytes by part: dispatcher, expert-0 ..., router, combination, metadata, and file, which is their sum."""
        parts = {"dispatcher": len(self.dispatcher.to_bytes())}
        parts.update({f"expert-{number}": len(expert.coded) for number, expert in enumerate(self.experts)})
        parts.update(router=self.router.num_bytes, combination=self.combination.num_bytes)
        file_bytes = len(self.to_bytes())
        return {**parts, "metadata": file_bytes - sum(parts.values()), "file": file_bytes}


def check_statistics(dispatcher: Adapter, experts: Sequence[ExpertEntry]) -> None:
    """Refuse experts whose own statistics would not fit in memory, before any is decoded.

    Raises:
        UsageError: they are more than `MAX_STATISTICS`.
    """
    num_values = sum(entry.num_bytes[2] > 0 for entry in experts) * dispatcher.stored_statistics.size
    if num_values > MAX_STATISTICS:
        raise UsageError(f"experts with {num_values:,} statistics in all: expected at most {MAX_STATISTICS:,}")


def make_cascade(
    base: Mapping[str, Tensor],
    dispatcher: Adapter,
    experts: Sequence[Adapter],
    *,
    router: Router,
    combination: Combination,
    provenance: dict[str, Any] | None = None,
) -> Cascade:
    """Cascade of finished adapters; experts are coded against the dispatcher.

    Args:
        base: state dict of the base.
        dispatcher: an adapter of it.
        experts: adapters of the same base that mask the same tensors and carry the same statistics, one for each of the
            router's clusters. An expert may be the dispatcher itself, which takes next to no bytes.
        router, combination: fitted on the dispatcher's, and on all their features.
        provenance: plain values for the header.

    Raises:
        MismatchError: adapters of different bases, tensors, statistics or preprocessing.
        UsageError: numbers of experts, blocks or features that do not fit together.
    """
    coded = tuple(
        make_expert(base, dispatcher, expert, called=f"expert {number}") for number, expert in enumerate(experts)
    )
    return Cascade(dispatcher, coded, router, combination, provenance or {})


def _features(adapter: Adapter, model: nn.Module, images: Tensor) -> Tensor:
    adapter.apply(model)
    # one image alone takes another road through the libraries than one of many, with other last bits
    batch = torch.cat([images, images]) if len(images) == 1 else images
    with torch.inference_mode():
        features: Tensor = model(batch)
    return features[: len(images)].float().cpu().clone()
