"""Sizes and times of adapter files on masks that smn trained, side by side with general compressors.

    python benchmarks/adapter_size.py --weights FILE [--swap] [--out FILE.md] RUN_OR_ADAPTER...

Every run folder or adapter file given is over the base in FILE. Prints Markdown: bytes of the same bits under each
compressor, and for each mask the whole file, pack and apply, and with --swap applying to a live network, removing and
switching. zstandard and brotli are only needed here (pip install zstandard brotli).
"""

import argparse
import bz2
import gzip
import hashlib
import lzma
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch

from smn_cli.adapters.adapter import Adapter, adapter_from_bytes, load_adapter, make_adapter
from smn_cli.adapters.codecs import get_codec, pack_bits
from smn_cli.adapters.sizes import measure_sizes
from smn_cli.backbones.loading import Backbone, load_backbone
from smn_cli.runs.pack import pack_run
from smn_cli.runs.run_folder import RunFolder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--arch")
    parser.add_argument("--swap", action="store_true")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--digest-of-pack", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("sources", nargs="+", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(2)
    sizes, times = [], []
    for source in options.sources:
        backbone, adapter, masks = load(source, options.weights, options.arch)
        if options.digest_of_pack:
            print(hashlib.sha256(packed(adapter, backbone, masks).to_bytes()).hexdigest())
            return
        sizes.append(size_row(source.name, adapter, backbone, masks))
        times.append(time_row(source, options.weights, adapter, backbone, masks, swap=options.swap))
    text = "\n".join([*table(sizes), "", *table(times), ""])
    print(text)
    if options.out:
        options.out.write_text(text, encoding="utf-8")


def load(source: Path, weights: str, arch: str | None) -> tuple[Backbone, Adapter, dict[str, torch.Tensor]]:
    """Base, adapter and masks of a run folder or an adapter file."""
    if source.is_dir():
        folder = RunFolder.open(source)
        backbone = load_backbone(arch or str(folder.read_config()["arch"]), weights)
        adapter = pack_run(folder, backbone, codec="bits")
    else:
        adapter = load_adapter(source)
        backbone = load_backbone(arch or adapter.header.arch, weights)
    return backbone, adapter, adapter.masks(backbone.model.state_dict())


def packed(adapter: Adapter, backbone: Backbone, masks: dict[str, torch.Tensor], codec: str = "auto") -> Adapter:
    header = adapter.header
    return make_adapter(
        backbone.model.state_dict(),
        masks,
        arch=header.arch,
        tag=header.tag,
        norm_stats=adapter.statistics(),
        preprocessing=header.preprocessing,
        provenance=header.provenance,
        codec=codec,
    )


def size_row(name: str, adapter: Adapter, backbone: Backbone, masks: dict[str, torch.Tensor]) -> dict[str, str]:
    """The same bits under every compressor, and the whole file."""
    bits = np.concatenate([masks[entry.name].numpy().reshape(-1) for entry in adapter.header.masks])
    state = backbone.model.state_dict()
    data = pack_bits(bits)
    lzma_bytes = len(lzma.compress(data, preset=9 | lzma.PRESET_EXTREME))
    others: dict[str, int | str] = {
        "bits": len(data),
        "gzip -9": len(gzip.compress(data, 9)),
        "bz2 -9": len(bz2.compress(data, 9)),
        "lzma -9e": lzma_bytes,
        "zstd -22": with_zstd(data),
        "brotli -11": with_brotli(data),
        "entropy by tensor": round(sum(entropy_bytes(masks[entry.name].numpy()) for entry in adapter.header.masks)),
    }
    base = [state[entry.name].numpy() for entry in adapter.header.masks]
    models = {name: len(get_codec(name).encode(bits, base)) for name in ("context", "context2")}
    ours = min(models.values())
    report = measure_sizes(packed(adapter, backbone, masks), state)
    best = min(value for value in others.values() if isinstance(value, int))
    return {
        "mask": name,
        "weights": f"{len(bits):,}",
        "density": f"{bits.mean():.4f}",
        **{key: f"{value:,}" if isinstance(value, int) else value for key, value in others.items()},
        **{name: f"**{size:,}**" if size == ours else f"{size:,}" for name, size in models.items()},
        "of lzma": f"{ours / lzma_bytes:.3f}",
        "of the best other": f"{ours / best:.3f}",
        "bits a weight": f"{8 * ours / len(bits):.4f}",
        "whole file": f"{report.file_bytes:,}",
        "statistics": f"{report.norm_stats_bytes:,}",
        "metadata": f"{report.metadata_bytes:,}",
        "float32 / file": f"{report.ratio:.0f}x",
        "lzma of float32 / file": f"{report.lzma_ratio:.0f}x",
    }


def time_row(
    source: Path, weights: str, adapter: Adapter, backbone: Backbone, masks: dict[str, torch.Tensor], *, swap: bool
) -> dict[str, str]:
    """Seconds of the parts, best of two."""
    state = backbone.model.state_dict()
    row = {"mask": source.name}
    for codec in ("bits", "context", "context2"):
        row[f"pack {codec}"] = f"{seconds(partial(packed, adapter, backbone, masks, codec)):.2f} s"
        loaded = adapter_from_bytes(packed(adapter, backbone, masks, codec).to_bytes())
        row[f"rebuild {codec}"] = f"{seconds(partial(loaded.rebuild, state), times=1):.2f} s"
        loaded = adapter_from_bytes(loaded.to_bytes())
        if swap:
            row[f"apply {codec}"] = f"{seconds(partial(loaded.apply, backbone.model), times=1):.2f} s"
            row[f"apply again {codec}"] = f"{seconds(partial(loaded.apply, backbone.model)):.2f} s"
            row[f"remove {codec}"] = f"{seconds(partial(loaded.remove, backbone.model), times=1):.3f} s"
    row["pack auto"] = f"{seconds(lambda: packed(adapter, backbone, masks), times=1):.2f} s"
    row["peak memory"] = f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB"
    command = [sys.executable, __file__, "--weights", weights, "--digest-of-pack", str(source)]
    digests = {subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout for _ in range(2)}
    row["two processes"] = "equal bytes" if len(digests) == 1 else "DIFFERENT BYTES"
    return row


def seconds(work: Callable[[], object], *, times: int = 2) -> float:
    taken = []
    for _ in range(times):
        started = time.perf_counter()
        work()
        taken.append(time.perf_counter() - started)
    return min(taken)


def entropy_bytes(mask: np.ndarray) -> float:
    share = np.array([mask.mean(), 1 - mask.mean()])
    return float(-(share * np.log2(np.maximum(share, 1e-12))).sum() * mask.size / 8)


def with_zstd(data: bytes) -> int | str:
    try:
        import zstandard
    except ImportError:
        return "no zstandard"
    return len(zstandard.ZstdCompressor(level=22).compress(data))


def with_brotli(data: bytes) -> int | str:
    try:
        import brotli
    except ImportError:
        return "no brotli"
    return len(brotli.compress(data, quality=11, lgwin=24))


def table(rows: list[dict[str, str]]) -> list[str]:
    """Markdown with one column a mask: there are more figures than masks."""
    lines = ["| " + " | ".join(["", *(row["mask"] for row in rows)]) + " |", "|---|" + "---:|" * len(rows)]
    for key in rows[0]:
        if key != "mask":
            lines.append("| " + " | ".join([key, *(row[key] for row in rows)]) + " |")
    return lines


if __name__ == "__main__":
    main()
