"""What an adapter weighs, and against what."""

import lzma
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from smn_cli.adapters.adapter import Adapter
from smn_cli.schemas.adapter_files import SizesJson

WHOLE_BYTES, SAMPLE_BYTES = 4_000_000, 1_000_000
"""lzma needs half a minute for a ResNet-50's weights: of more than so many bytes, a megabyte in pieces spread over them
tells its ratio to a percent, in a third of a second."""
_SAMPLE_BLOCKS = 16


@dataclass(frozen=True)
class SizeReport:
    """Bytes of the backbone, of the adapter file and of its parts.

    `lzma_bytes` of the backbone is extrapolated from a sample if `lzma_is_estimate`. Metadata is all of the file that
    is neither mask, statistics, classifier nor readout: header, digests, checksum.
    """

    codec: str
    density: float
    fp32_bytes: int
    lzma_bytes: int
    lzma_is_estimate: bool
    bits_bytes: int
    file_bytes: int
    mask_bytes: int
    norm_stats_bytes: int
    head_bytes: int
    readout_bytes: int
    metadata_bytes: int

    @property
    def ratio(self) -> float:
        """float32 backbone over the whole adapter file."""
        return self.fp32_bytes / self.file_bytes

    @property
    def lzma_ratio(self) -> float:
        """The backbone after lzma over the whole adapter file."""
        return self.lzma_bytes / self.file_bytes

    def to_json(self) -> SizesJson:
        """All numbers, for --json."""
        return {
            "codec": self.codec,
            "density": self.density,
            "fp32_bytes": self.fp32_bytes,
            "lzma_bytes": self.lzma_bytes,
            "lzma_is_estimate": self.lzma_is_estimate,
            "bits_bytes": self.bits_bytes,
            "file_bytes": self.file_bytes,
            "mask_bytes": self.mask_bytes,
            "norm_stats_bytes": self.norm_stats_bytes,
            "head_bytes": self.head_bytes,
            "readout_bytes": self.readout_bytes,
            "metadata_bytes": self.metadata_bytes,
            "ratio": self.ratio,
            "lzma_ratio": self.lzma_ratio,
        }


@dataclass(frozen=True)
class BaseSize:
    """Bytes of a backbone as float32, and after lzma, which are extrapolated from a sample if `lzma_is_estimate`."""

    fp32_bytes: int
    lzma_bytes: int
    lzma_is_estimate: bool


def measure_base(base: Mapping[str, Tensor]) -> BaseSize:
    """Sizes of a backbone; lzma, during which other threads can work, takes a second at most.

    Args:
        base: the backbone's state dict, without a classifier.
    """
    floats = [tensor for tensor in base.values() if tensor.is_floating_point()]
    fp32_bytes = sum(4 * tensor.numel() for tensor in floats)
    lzma_ratio, is_estimate = _lzma_ratio(floats, fp32_bytes)
    return BaseSize(fp32_bytes, round(fp32_bytes * lzma_ratio), is_estimate)


def measure_sizes(adapter: Adapter, base: Mapping[str, Tensor] | BaseSize) -> SizeReport:
    """Sizes of an adapter against its base.

    Args:
        adapter: as packed.
        base: the backbone's state dict, without a classifier, or what `measure_base` found of it.
    """
    of_base = base if isinstance(base, BaseSize) else measure_base(base)
    file_bytes = len(adapter.to_bytes())
    return SizeReport(
        codec=adapter.header.codec,
        density=adapter.header.density,
        fp32_bytes=of_base.fp32_bytes,
        lzma_bytes=of_base.lzma_bytes,
        lzma_is_estimate=of_base.lzma_is_estimate,
        bits_bytes=(adapter.header.num_weights + 7) // 8,
        file_bytes=file_bytes,
        mask_bytes=adapter.payload_bytes,
        norm_stats_bytes=adapter.norm_stats_bytes,
        head_bytes=adapter.head_bytes,
        readout_bytes=adapter.readout_bytes,
        metadata_bytes=file_bytes - adapter.part_bytes,
    )


def _lzma_ratio(floats: list[Tensor], fp32_bytes: int) -> tuple[float, bool]:
    if fp32_bytes > WHOLE_BYTES:
        block = SAMPLE_BYTES // _SAMPLE_BLOCKS
        starts = np.linspace(0, fp32_bytes - block, _SAMPLE_BLOCKS).astype(np.int64) // 4 * 4
        data = b"".join(_bytes_between(floats, start, start + block) for start in starts.tolist())
    else:
        data = _bytes_between(floats, 0, fp32_bytes)
    return len(lzma.compress(data)) / len(data), len(data) < fp32_bytes


def _bytes_between(floats: list[Tensor], start: int, end: int) -> bytes:
    """Of all tensors as float32, one after the other; start and end are multiples of four."""
    parts, before = [], 0
    for tensor in floats:
        first, last = max(start - before, 0) // 4, min(end - before, 4 * tensor.numel()) // 4
        if first < last:
            parts.append(tensor.detach().reshape(-1)[first:last].cpu().float().numpy().tobytes())
        before += 4 * tensor.numel()
    return b"".join(parts)
