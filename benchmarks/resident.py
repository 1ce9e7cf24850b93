"""Many adapters over one loaded network: memory for each, first use, switching.

    python benchmarks/resident.py --arch resnet50 --weights FILE [--counts 1 4 16 64] ADAPTER...

The files given are loaded again and again until there are as many adapters as asked for.
"""

import argparse
import gc
import itertools
import statistics
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import nn

from smn_cli.adapters.adapter import Adapter, load_adapter
from smn_cli.backbones.loading import load_backbone
from smn_cli.runs.run_config import versions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", required=True)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--counts", nargs="+", type=int, default=[1, 4, 16, 64])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("adapters", nargs="+", type=Path)
    options = parser.parse_args()
    size = statistics.mean(path.stat().st_size for path in options.adapters)
    print(f"{torch.get_num_threads()} threads; {versions()}; medians of {options.rounds} rounds\n")
    print("| adapters resident | memory for each | file | first use | switch | take off |\n|---|---|---|---|---|---|")
    for row in measure(options.arch, options.weights, options.adapters, options.counts, options.rounds):
        times = [f"{row[name]:.3f} s" for name in ("first use", "switch", "take off")]
        cells = [str(row["count"]), f"{row['bytes'] / row['count'] / 1e6:.2f} MB", f"{size / 1e6:.2f} MB", *times]
        print(f"| {' | '.join(cells)} |", flush=True)


def measure(
    arch: str, weights: str, files: Sequence[Path], counts: Sequence[int], rounds: int = 9
) -> Iterator[dict[str, float]]:
    """For each count: bytes held by so many adapters, and medians in seconds of first use, switch and take off."""
    model = load_backbone(arch, weights).model
    loaded: list[Adapter] = []
    first_uses: list[float] = []
    for count in counts:
        for path in itertools.islice(itertools.cycle(files), count - len(loaded)):
            loaded.append(load_adapter(path))
            first_uses.append(seconds(lambda: loaded[-1].apply(model)))
            loaded[-1].remove(model)
        loaded[0].apply(model)
        switches = [seconds(partial(loaded[(n + 1) % count].apply, model)) for n in range(rounds)]
        removals = []
        for _ in range(rounds):
            removals.append(seconds(lambda: loaded[0].remove(model)))
            loaded[0].apply(model)
        loaded[0].remove(model)
        times = {"first use": first_uses, "switch": switches, "take off": removals}
        yield {
            "count": count,
            "bytes": held_bytes(model, files, count),
            **{name: statistics.median(values) for name, values in times.items()},
        }


def seconds(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def held_bytes(model: nn.Module, files: Sequence[Path], count: int) -> int:
    """What so many adapters that were used once hold, as Python and NumPy count it: the process's own size is noise."""
    tracemalloc.start()
    try:
        held = [load_adapter(path) for path in itertools.islice(itertools.cycle(files), count)]
        for adapter in held:
            adapter.apply(model)
            adapter.remove(model)
        gc.collect()
        return tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


if __name__ == "__main__":
    main()
