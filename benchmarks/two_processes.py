"""What a second process on the same cores does to a step, by how threads wait for each other.

    python benchmarks/two_processes.py                            # the table, as Markdown
    python benchmarks/two_processes.py --arch resnet18 --size 64 --seconds 5

Steps of the default recipe (late mask, native size) in a process of its own, alone and then two at once, for each way
of waiting; smn's own is what the command line sets before it loads torch. All in turn, as often as --rounds
says; medians of all steps.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from argparse import Namespace

from smn_cli.process import _keep_memory

WAYS = {
    "as torch has it": {},
    "`GOMP_SPINCOUNT=10000`": {"GOMP_SPINCOUNT": "10000"},
    "`GOMP_SPINCOUNT=3000`": {"GOMP_SPINCOUNT": "3000"},
    "`GOMP_SPINCOUNT=1000`, smn's own": {"GOMP_SPINCOUNT": "1000"},
    "`OMP_WAIT_POLICY=PASSIVE`": {"OMP_WAIT_POLICY": "PASSIVE"},
}
WARMING = 3
"""Seconds of steps that are not counted: both processes have to be at work."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", default="tf_efficientnet_lite0")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--mode", default="fp32", choices=["fp32", "bf16"])
    parser.add_argument("--seconds", type=float, default=15.0, help="of steps that are counted, a process and round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--child", action="store_true", help="be one of the processes")
    options = parser.parse_args()
    if options.child:
        print(json.dumps(steps(options)))
        return
    taken: dict[tuple[str, int], list[float]] = {(way, number): [] for way in WAYS for number in (1, 2)}
    for _ in range(options.rounds):
        for way, number in taken:
            taken[way, number] += at_once(number, WAYS[way])
    what = f"{options.arch}, {options.mode}, batch {options.batch}, {options.size} px"
    print(f"{what}; {os.cpu_count()} processors\n")
    print("| threads wait | alone, ms a step | two at once, ms | times |\n|---|---|---|---|")
    for way in WAYS:
        alone, both = (1e3 * statistics.median(taken[way, number]) for number in (1, 2))
        print(f"| {way} | {alone:,.0f} | {both:,.0f} | {both / alone:.1f} |")


def at_once(number: int, variables: dict[str, str]) -> list[float]:
    """Seconds of each step of so many processes that run at the same time."""
    others = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    command = [sys.executable, *sys.argv, "--child"]
    children = [
        subprocess.Popen(command, env={**others, **variables}, stdout=subprocess.PIPE, text=True) for _ in range(number)
    ]
    return [taken for child in children for taken in json.loads(child.communicate()[0].splitlines()[-1])]


def steps(options: Namespace) -> list[float]:
    """Seconds of each step that ended after the warming and before the time was up."""
    import torch  # only here, where the environment is the child's
    from native_step import make_batch, make_step

    named = Namespace(device="cpu", size=options.size, late=None)
    _keep_memory()
    step = make_step(options.arch, options.mode, options.batch, "late mask", named)
    batch = make_batch(options.batch, options.size, torch.device("cpu"))
    taken, begin = [], time.perf_counter()
    while (started := time.perf_counter()) < begin + WARMING + options.seconds:
        step(batch)
        if started > begin + WARMING:
            taken.append(time.perf_counter() - started)
    return taken


if __name__ == "__main__":
    main()
