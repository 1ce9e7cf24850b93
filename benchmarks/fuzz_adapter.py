"""Damaged adapter files by the hundred thousand: nothing but the documented errors may come out.

    python benchmarks/fuzz_adapter.py [--inputs 100000] [--seed 0]

Tiny files of every codec are bit-flipped, cut, spliced with each other and changed in their header, half of them with
the checksum made right again. What still rebuilds must be the recorded network.
"""

import argparse
import collections
import json
import random
import time
from collections.abc import Callable
from typing import Any

from smn_cli.adapters.adapter import adapter_from_bytes
from smn_cli.adapters.fingerprint import fingerprint
from smn_cli.errors import AdapterFileError, MismatchError
from tests.adapters.forging import put_together, sign, take_apart, toy_adapter, toy_base

FILES = [
    toy_adapter(codec, statistics=carried).to_bytes()
    for codec in ("bits", "lzma", "context", "context2")
    for carried in (False, True)
]
BASE = toy_base()
RECORDED = {adapter_from_bytes(data).header.adapted_digest for data in FILES}
ODD: list[Any] = [
    None,
    True,
    -1,
    0,
    1.5,
    1 << 63,
    "",
    "x",
    "context",
    "context2",
    "bits",
    "\0",
    "../x",
    [],
    [[]],
    {},
    {"digest": 3},
    [["w", [1 << 40], 1]],
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    generator = random.Random(options.seed)
    outcomes: collections.Counter[str] = collections.Counter()
    slowest, started = 0.0, time.perf_counter()
    for number in range(options.inputs):
        kind = KINDS[number % len(KINDS)]
        data = kind(FILES, generator)
        begun = time.perf_counter()
        try:
            outcomes[f"{kind.__name__}: {outcome(data)}"] += 1
        except BaseException:
            print(f"input {number} ({kind.__name__}), as hexadecimal: {data.hex()}")
            raise
        slowest = max(slowest, time.perf_counter() - begun)
    seconds = time.perf_counter() - started
    print(
        f"{options.inputs:,} damaged inputs, seed {options.seed}: {seconds:.0f} s, the slowest {slowest * 1000:.0f} ms"
    )
    for name, count in sorted(outcomes.items()):
        print(f"  {name} {count:,}")


def outcome(data: bytes) -> str:
    """What becomes of a file; anything but the documented errors and the recorded network is raised."""
    try:
        state = adapter_from_bytes(data).rebuild(BASE)
    except (AdapterFileError, MismatchError) as error:
        return type(error).__name__
    if fingerprint(state).digest not in RECORDED:
        raise AssertionError("a damaged file rebuilt another network")
    return "rebuilt as recorded"


def flipped(files: list[bytes], generator: random.Random) -> bytes:
    data = bytearray(generator.choice(files))
    for _ in range(generator.choice((1, 1, 2, 8))):
        position = generator.randrange(8 * len(data))
        data[position // 8] ^= 1 << position % 8
    return perhaps_signed(bytes(data), generator)


def cut(files: list[bytes], generator: random.Random) -> bytes:
    data = generator.choice(files)
    start = generator.choice((0, 0, generator.randrange(len(data))))
    return perhaps_signed(data[start : generator.randrange(start, len(data) + 1)], generator)


def spliced(files: list[bytes], generator: random.Random) -> bytes:
    one, other = generator.choices(files, k=2)
    return perhaps_signed(one[: generator.randrange(len(one))] + other[generator.randrange(len(other)) :], generator)


def noised(files: list[bytes], generator: random.Random) -> bytes:
    data = generator.choice(files)
    start = generator.randrange(len(data))
    return perhaps_signed(data[:start] + generator.randbytes(generator.randrange(1, 40)) + data[start:], generator)


def header_changed(files: list[bytes], generator: random.Random) -> bytes:
    header, parts = take_apart(generator.choice(files))
    change(header, generator)
    return put_together(json.dumps(header), parts)


def change(content: dict[str, Any], generator: random.Random) -> None:
    """Put something odd somewhere into a JSON object."""
    place: Any = content
    key: Any = generator.choice(sorted(content))
    while isinstance(place[key], dict | list) and place[key] and generator.random() < 0.7:
        place = place[key]
        key = generator.choice(sorted(place) if isinstance(place, dict) else range(len(place)))
    place[key] = generator.choice(ODD)


def payload_changed(files: list[bytes], generator: random.Random) -> bytes:
    header, parts = take_apart(generator.choice(files))
    name = generator.choice(sorted(parts))
    dtype, shape, old = parts[name]
    new = bytearray(old)
    for _ in range(generator.randrange(1, 6) if new else 0):
        new[generator.randrange(len(new))] = generator.randrange(256)
    if name in ("mask", "experts") and generator.random() < 0.5:
        new = bytearray(generator.randbytes(generator.randrange(1, 60)))
        shape = [len(new)]
    return put_together(header, {**parts, name: (dtype, shape, bytes(new))})


def perhaps_signed(data: bytes, generator: random.Random) -> bytes:
    return sign(data) if len(data) > 32 and generator.random() < 0.5 else data


KINDS: tuple[Callable[[list[bytes], random.Random], bytes], ...] = (
    flipped,
    cut,
    spliced,
    noised,
    header_changed,
    payload_changed,
)

if __name__ == "__main__":
    main()
