"""Attacks on smn, for as long as you like: nothing lost, nothing wrong, nothing unexplained.

    python -m benchmarks.attack --work FOLDER --campaign kills --seconds 600
    python -m benchmarks.attack --work FOLDER --campaign flips --seconds 300 --seed 1

*kills*: commands are killed, see `benchmarks.attack.kills`. *flips*: a file of a finished run is damaged.
*room*: files that may not grow, a small file system (needs root), and changes of files that the system refuses.
*mutated*: files that lie behind right checksums. *soak*: one process that goes on and on. *cached*: processes that
share a cache. The readers under coverage-guided fuzzing are in `benchmarks.attack.readers`.

Prints one JSON object: tries, seconds, outcomes, failures; exit 1 on any failure. A failure is a wrong result, an
unexpected fault (exit 1, a signal), something half-written, or two minutes without an end.
"""

import argparse
import json
import random
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from benchmarks.attack.cached import Cached
from benchmarks.attack.flips import Flips
from benchmarks.attack.kills import Kills
from benchmarks.attack.mutated import Mutated
from benchmarks.attack.place import Place, Tally
from benchmarks.attack.processes import warm_up
from benchmarks.attack.room import Room
from benchmarks.attack.soak import Soak


class Campaign(Protocol):
    """Does one try after the other, and notes what came of it."""

    def tries(self, tally: Tally) -> Iterator[None]: ...


CAMPAIGNS: dict[str, Callable[[Place, random.Random], Campaign]] = {
    "kills": Kills,
    "flips": Flips,
    "room": Room,
    "mutated": Mutated,
    "soak": Soak,
    "cached": Cached,
}
MOST_FAILURES = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="a folder, made anew")
    parser.add_argument("--campaign", choices=CAMPAIGNS, required=True)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--tries", type=int, default=None, help="at most")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    warm_up()
    campaign = CAMPAIGNS[options.campaign](Place(options.work), random.Random(options.seed))
    tally, num_tries = run(campaign, seconds=options.seconds, most=options.tries)
    told = {"campaign": options.campaign, "seed": options.seed, "tries": num_tries, **tally.facts}
    print(json.dumps({**told, "outcomes": dict(sorted(tally.outcomes.items())), "failures": tally.failures}, indent=2))
    sys.exit(bool(tally.failures))


def run(campaign: Campaign, *, seconds: float, most: int | None = None) -> tuple[Tally, int]:
    """Tries until the time is over; what they saw, and their number."""
    tally, started, num_tries = Tally(), time.monotonic(), 0
    for _ in campaign.tries(tally):
        num_tries += 1
        if time.monotonic() - started > seconds or num_tries == most or len(tally.failures) >= MOST_FAILURES:
            break
    tally.facts["seconds"] = round(time.monotonic() - started)
    return tally, num_tries


if __name__ == "__main__":
    main()
