"""Makes the golden adapter files of format version 1: `python -m tests.golden.make_golden`.

The files that are here stay as they are for ever: every later smn reads them. Run this only to add files for a codec
that is new; it leaves alone what exists. All values come from integer formulas, so that they are the same anywhere.
"""

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from smn_cli.adapters.adapter import Adapter, make_adapter
from smn_cli.adapters.head import StoredHead
from smn_cli.adapters.readout import StoredReadout
from smn_cli.adapters.schema import ReadoutEntry

FOLDER = Path(__file__).parent
SHAPES: dict[str, tuple[int, ...]] = {
    "stem.weight": (4, 3, 3, 3),
    "norm.weight": (4,),
    "norm.bias": (4,),
    "norm.running_mean": (4,),
    "norm.running_var": (4,),
    "blocks.0.weight": (9, 4, 1, 1),
    "blocks.10.weight": (5, 9),
    "blocks.10.bias": (5,),
}
MASKED = ("stem.weight", "blocks.0.weight", "blocks.10.weight")
FILES = {
    "v1_bits.safetensors": ("bits", False),
    "v1_lzma.safetensors": ("lzma", False),
    "v1_bits_norm_stats.safetensors": ("bits", True),
    "v1_lzma_norm_stats.safetensors": ("lzma", True),
    "v1_context.safetensors": ("context", False),
    "v1_context_norm_stats.safetensors": ("context", True),
    "v1_context2.safetensors": ("context2", False),
    "v1_context2_norm_stats.safetensors": ("context2", True),
}
WITH_HEAD = "v1_bits_head.safetensors"
WITH_WORDS = "v1_bits_described.safetensors"
WITH_READOUT = {"v1_bits_readout_centred.safetensors": "centred", "v1_bits_readout_stages.safetensors": "stages"}


def _numbers(name: str) -> np.ndarray:
    """Pseudorandom integers below 2^16 in a tensor's shape: a linear congruence started at its place in SHAPES."""
    state, numbers = 12345 + list(SHAPES).index(name), []
    for _ in range(int(np.prod(SHAPES[name]))):
        state = (1103515245 * state + 12345) % (1 << 31)
        numbers.append(state >> 15)
    return np.array(numbers).reshape(SHAPES[name])


def base() -> dict[str, Tensor]:
    """The base, as it stands in base.safetensors: multiples of 1/65536 around zero, variances above it."""
    state = {name: torch.from_numpy(((_numbers(name) - 32768) / 65536).astype(np.float32)) for name in SHAPES}
    state["norm.running_var"] += 1
    return {**state, "norm.num_batches_tracked": torch.tensor(11)}


def masks() -> dict[str, Tensor]:
    """A weight is cut where its number, divided by 7, leaves 3."""
    return {name: torch.from_numpy(_numbers(name) % 7 != 3) for name in MASKED}


def statistics() -> dict[str, Tensor]:
    """The base's statistics, halved and a third added."""
    third = torch.tensor(np.float32(1) / np.float32(3))
    return {name: tensor / 2 + third for name, tensor in base().items() if "running" in name}


def golden_adapter(codec: str, *, has_norm_stats: bool) -> Adapter:
    """The adapter that a golden file holds."""
    return make_adapter(
        base(),
        masks(),
        arch="golden",
        tag="v1",
        codec=codec,
        norm_stats=statistics() if has_norm_stats else None,
        preprocessing={"size": 32, "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25], "interpolation": "bicubic"},
        provenance={"smn": "0.1.0", "num_images": 24, "note": "caf\u00e9 \u2713"},
    )


def head() -> StoredHead:
    """Three classes; levels, scales and biases told by their place."""
    levels = (np.arange(15).reshape(3, 5) * 37 % 255 - 127).astype(np.int8)
    values = np.arange(1, 4, dtype=np.float32)
    return StoredHead("top.fc", ("caf\u00e9", "crane \U0001f3d7", "zebra"), levels, values / 64, values / 4 - 1)


def golden_adapter_with_head() -> Adapter:
    """The adapter that WITH_HEAD holds."""
    return make_adapter(base(), masks(), arch="golden", tag="v1", codec="bits", head=head())


def readout(kind: str) -> StoredReadout:
    """Of five features; levels, scales, biases, inputs and means told by their place."""
    if kind == "centred":
        return StoredReadout(ReadoutEntry("centred", 5, 5, 24), {"mean": np.arange(-2, 3, dtype=np.float16) / 8})
    values = np.arange(1, 6, dtype=np.float32)
    parts: dict[str, np.ndarray] = {
        "levels": (np.arange(15).reshape(3, 5) * 53 % 255 - 127).astype(np.int8),
        "scales": values[:3] / 32,
        "bias": values[:3] / 4 - 1,
        "inputs": (values - 1) / 2,
    }
    return StoredReadout(ReadoutEntry("stages", 3, 5, 24), parts)


def golden_adapter_with_readout(kind: str) -> Adapter:
    """The adapter that a file of WITH_READOUT holds."""
    return make_adapter(base(), masks(), arch="golden", tag="v1", codec="bits").with_readout(readout(kind))


def golden_adapter_with_words() -> Adapter:
    """The adapter that WITH_WORDS holds."""
    plain = make_adapter(base(), masks(), arch="golden", tag="hf-hub:me/golden", codec="bits")
    return plain.described(licence="cc-by-4.0", description="Caf\u00e9s at night, 24 of them")


def main() -> None:
    """Write what is missing."""
    contents = {"base.safetensors": save(base())}
    for name, (codec, has_norm_stats) in FILES.items():
        contents[name] = golden_adapter(codec, has_norm_stats=has_norm_stats).to_bytes()
    contents[WITH_HEAD] = golden_adapter_with_head().to_bytes()
    contents[WITH_WORDS] = golden_adapter_with_words().to_bytes()
    for name, kind in WITH_READOUT.items():
        contents[name] = golden_adapter_with_readout(kind).to_bytes()
    for name, content in contents.items():
        if not (FOLDER / name).exists():
            (FOLDER / name).write_bytes(content)


if __name__ == "__main__":
    main()
