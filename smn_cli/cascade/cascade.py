"""A cascade in memory: what it is made of, and the features it gives to images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from smn_cli.adapters.adapter import Adapter
from smn_cli.cascade.combining import Combination
from smn_cli.cascade.expert import Expert
from smn_cli.cascade.router import Router


@dataclass(frozen=True)
class Cascade:
    """Dispatcher, experts, router and combination over one base.

    Attributes:
        dispatcher: the adapter whose features are routed.
        experts: one a cluster, in the router's order.
        router, combination: of the training images.
        provenance: where it comes from; plain values, for people.
    """

    dispatcher: Adapter
    experts: tuple[Expert, ...]
    router: Router
    combination: Combination
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def mode(self) -> str:
        """ "conditional" or "unconditional", as its combination was fitted."""
        return self.combination.mode

    def embed(self, model: nn.Module, images: Tensor, *, mode: str | None = None) -> Tensor:
        """Features of a batch.

        Args:
            model: the base, in eval mode; adapters go onto it in turn, and it is left as the base.
            images: (N, 3, H, W) float32, prepared.
            mode: "conditional": the dispatcher's forward and one expert's for each image; "unconditional": all
                experts'. None is the cascade's own; another one only where the combination stores nothing.

        Returns:
            (N, dim) float32 on the CPU.

        Raises:
            MismatchError, AdapterFileError: the model is not the base.
            UsageError: the stored combination is for the other mode.
        """
        raise NotImplementedError

    def to_bytes(self) -> bytes:
        """The cascade file's bytes."""
        raise NotImplementedError

    def sizes(self) -> dict[str, int]:
        """Bytes by part: dispatcher, expert-0 ..., router, combination, metadata, file, which is their sum."""
        raise NotImplementedError


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
        MismatchError: adapters of different bases, tensors or statistics.
        UsageError: numbers of experts, blocks or features that do not fit together.
    """
    raise NotImplementedError
