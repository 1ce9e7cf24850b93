"""What a backbone weighs after lzma: exactly if it is small, else from pieces that are spread over it."""

import lzma

import numpy as np
import torch

from smn_cli.adapters.sizes import SAMPLE_BYTES, WHOLE_BYTES, measure_base

SMALL = {"a.weight": torch.randn(7, 30), "count": torch.tensor(3), "b": torch.randn(11).half(), "t": torch.rand(5, 4).T}


def test_a_small_backbone_is_compressed_whole() -> None:
    floats = [tensor.float().reshape(-1).numpy() for name, tensor in SMALL.items() if name != "count"]
    whole = np.concatenate(floats).tobytes()
    found = measure_base(SMALL)
    assert (found.fp32_bytes, found.lzma_is_estimate) == (len(whole), False)
    assert found.lzma_bytes == len(lzma.compress(whole))


def test_of_a_large_one_sixteen_pieces_are() -> None:
    base = {"zeros": torch.zeros(WHOLE_BYTES // 8), **SMALL, "noise": torch.randn(WHOLE_BYTES // 4)}
    floats = [tensor.float().reshape(-1).numpy() for name, tensor in base.items() if name != "count"]
    whole = np.concatenate(floats).tobytes()
    piece = SAMPLE_BYTES // 16
    starts = [int(start) // 4 * 4 for start in np.linspace(0, len(whole) - piece, 16)]
    sample = b"".join(whole[start : start + piece] for start in starts)
    found = measure_base(base)
    assert (found.fp32_bytes, found.lzma_is_estimate) == (len(whole), True)
    assert found.lzma_bytes == round(len(whole) * (len(lzma.compress(sample)) / len(sample)))
