"""Makes the golden cascade file of format version 1: `python -m tests.golden.make_golden_cascade`.

It stays as it is for ever, like the files of `make_golden`. Nothing is fitted: all tensors come from integer formulas.
"""

import torch
from torch import Tensor

from smn_cli.adapters.adapter import Adapter, make_adapter
from smn_cli.cascade.cascade import Cascade, make_cascade
from smn_cli.cascade.combining import Combination
from smn_cli.cascade.router import Router
from tests.golden.make_golden import FOLDER, base, masks, statistics

NAME = "cascade/v1.safetensors"
WIDTH, COMPONENTS, EXPERTS, DIM = 5, 2, 2, 4


def features() -> Tensor:
    """Features of seven images."""
    return ((torch.arange(7 * WIDTH) * 37 % 23 - 11) / 8.0).view(7, WIDTH)


def adapters() -> list[Adapter]:
    """A dispatcher, an expert that differs in mask and statistics, and one that does not."""
    changed = {name: mask.clone() for name, mask in masks().items()}
    for mask in changed.values():
        mask.view(-1)[::11] ^= True
    moved = {name: tensor + 0.125 for name, tensor in statistics().items()}
    return [_adapter(masks(), statistics()), _adapter(changed, moved), _adapter(masks(), statistics())]


def _adapter(kept: dict[str, Tensor], norm_stats: dict[str, Tensor]) -> Adapter:
    return make_adapter(base(), kept, arch="golden", tag="v1", codec="bits", norm_stats=norm_stats)


def golden_cascade() -> Cascade:
    """The cascade that the golden file holds."""
    dispatcher, *experts = adapters()
    router = Router(
        "gmm",
        {
            "axes": (torch.arange(COMPONENTS * WIDTH) * 53 % 255 - 127).to(torch.int8).view(COMPONENTS, WIDTH),
            "scales": torch.tensor([0.0078125, 0.0078125]),
            "offsets": torch.tensor([0.0, -0.5]),
            "centres": torch.tensor([[0.75, 1.25], [0.125, 0.5]]),
            "precisions": torch.tensor([[1.0, 0.5, 2.0], [0.75, -0.25, 1.5]]).half(),
            "biases": torch.tensor([0.0, -0.25]),
        },
    )
    projection = {"centre": torch.tensor([0.5, -0.25, 0.0, 1.0]).half(), "scale": torch.tensor([2.0])}
    combination = Combination("random", "conditional", EXPERTS + 1, WIDTH, DIM, 9, projection)
    return make_cascade(
        base(), dispatcher, experts, router=router, combination=combination, provenance={"note": "caf\u00e9 \u2713"}
    )


def main() -> None:
    """Write it if it is missing."""
    if not (FOLDER / NAME).exists():
        (FOLDER / NAME).write_bytes(golden_cascade().to_bytes())


if __name__ == "__main__":
    main()
