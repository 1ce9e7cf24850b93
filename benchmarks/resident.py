"""Many adapters over one loaded network: memory for each, first use, switching.

    python benchmarks/resident.py --arch resnet50 --weights FILE [--counts 1 4 16 64] ADAPTER...

The files given are loaded again and again until there are as many adapters as asked for.
"""

import argparse
import gc
import itertools
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from smn_cli.adapters.adapter import Adapter, load_adapter
from smn_cli.backbones.loading import load_backbone
from smn_cli.training.record import versions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", required=True)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--counts", nargs="+", type=int, default=[1, 4, 16, 64])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("adapters", nargs="+", type=Path)
    options = parser.parse_args()
    model = load_backbone(options.arch, options.weights).model
    print(f"{torch.get_num_threads()} threads; {versions()}; medians of {options.rounds} rounds\n")
    print("| adapters resident | memory for each | file | first use | switch | take off |\n|---|---|---|---|---|---|")
    loaded: list[Adapter] = []
    before = resident_bytes()
    first_uses: list[float] = []
    for count in options.counts:
        for path in itertools.islice(itertools.cycle(options.adapters), count - len(loaded)):
            loaded.append(load_adapter(path))
            first_uses.append(seconds(lambda: loaded[-1].apply(model)))
            loaded[-1].remove(model)
        held = (resident_bytes() - before) / count
        loaded[0].apply(model)
        switches = [seconds(partial(loaded[(n + 1) % count].apply, model)) for n in range(options.rounds)]
        removals = []
        for _ in range(options.rounds):
            removals.append(seconds(lambda: loaded[0].remove(model)))
            loaded[0].apply(model)
        loaded[0].remove(model)
        size = statistics.mean(path.stat().st_size for path in options.adapters)
        times = [statistics.median(values) for values in (first_uses, switches, removals)]
        cells = [str(count), f"{held / 1e6:.2f} MB", f"{size / 1e6:.2f} MB", *(f"{value:.3f} s" for value in times)]
        print(f"| {' | '.join(cells)} |", flush=True)


def seconds(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def resident_bytes() -> int:
    """Memory that the process holds now."""
    gc.collect()
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))


if __name__ == "__main__":
    main()
