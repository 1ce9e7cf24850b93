"""Seconds to encode and decode a ResNet-50's masks with the library constriction and without, and whether bytes agree.

    python benchmarks/range_coder.py [--arch resnet50]

Weights are timm's random ones; a weight is cut where its magnitude, moved by a product of its row's and its column's
number, is small: about what training from magnitudes leaves. Processor time is given beside seconds.
"""

import argparse
import sys
import time
from collections.abc import Callable
from typing import Any

import constriction
import numpy as np
import timm
import torch

from smn_cli.adapters.codecs import CODECS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", default="resnet50")
    base, bits = some_masks(parser.parse_args().arch)
    print(f"{len(bits):,} weights, density {bits.mean():.4f}\n")
    print("| codec | coder | bytes | encode: s (processor) | decode: s (processor) |\n|---|---|---|---|---|")
    for codec in (CODECS["context"], CODECS["context2"]):
        payloads = set()
        for coder, module in (("constriction", constriction), ("Python", None)):
            # None: as if it were not installed
            sys.modules["constriction"] = module  # type: ignore[assignment]
            payload, encoding = timed(codec.encode, bits, base)
            decoded, decoding = timed(codec.decode, payload, len(bits), base)
            payloads.add(payload)
            if len(payloads) != 1 or not np.array_equal(decoded, bits):
                raise SystemExit(f"{codec.name} gives other bytes or bits with {coder}")
            print(f"| {codec.name} | {coder} | {len(payload):,} | {encoding} | {decoding} |", flush=True)


def some_masks(arch: str) -> tuple[list[np.ndarray], np.ndarray]:
    """Weights that can be masked, and a bit for each."""
    torch.manual_seed(0)
    model = timm.create_model(arch, num_classes=0)
    base = [tensor.detach().numpy() for tensor in model.parameters() if tensor.ndim > 1]
    generator, bits = np.random.default_rng(0), []
    for weights in base:
        table = weights.reshape(len(weights), -1)
        rows, columns = generator.normal(size=(len(table), 1)), generator.normal(size=(1, table.shape[1]))
        moved = np.abs(table) / table.std() + 0.1 * rows * columns * np.sign(table)
        bits.append((moved + 0.05 * generator.normal(size=table.shape) > 0.06).reshape(-1))
    return base, np.concatenate(bits)


def timed(run: Callable[..., Any], *arguments: object) -> tuple[Any, str]:
    """The result, and how long it took."""
    start, busy = time.perf_counter(), time.process_time()
    result = run(*arguments)
    return result, f"{time.perf_counter() - start:.1f} ({time.process_time() - busy:.1f})"


if __name__ == "__main__":
    main()
