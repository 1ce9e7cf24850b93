"""How long it takes to find images, beside a plain os.walk; and to index tars and read images, loose or in a tar.

    python benchmarks/indexing.py --images FOLDER --work FOLDER

Files that are found are empty and made here, in folders of 1,000 and of 20; those that are read are real. Every way is
timed side by side, one round after another, and the median of the rounds counts. Everything made is removed.
"""

import argparse
import os
import platform
import shutil
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

COUNTS = (10_000, 50_000, 200_000)
FOLDER_SIZES = (1000, 20)
SETTLE_S = 2.5  # the index of a younger tar is not kept


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--num-read", type=int, default=5000)
    parser.add_argument("--shard-size", type=int, default=1000)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=options.work))
    os.environ["SMN_CACHE_HOME"] = str(folder / "cache")
    try:
        lines = find_table(folder, options.rounds) + read_table(folder, options)
    finally:
        shutil.rmtree(folder)
    print("\n".join(lines))


def medians(ways: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each way, all of them once a round."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            started = time.perf_counter()
            way()
            taken[name].append(time.perf_counter() - started)
    return {name: statistics.median(seconds) for name, seconds in taken.items()}


def find_table(folder: Path, rounds: int) -> list[str]:
    """Seconds to list files and to find them as smn does."""
    from smn_cli.data.images.extensions import IMAGE_SUFFIXES
    from smn_cli.data.images.find import find_images, list_files

    lines = [
        f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}, median of {rounds} rounds",
        "",
        "| files | a folder | os.walk, pathlib | list_files | find_images |",
        "|---:|---:|---:|---:|---:|",
    ]
    for num_files in COUNTS:
        for folder_size in FOLDER_SIZES:
            root = make_files(folder / f"files-{num_files}-{folder_size}", num_files, folder_size)
            assert list_files(root, IMAGE_SUFFIXES) == [path.relative_to(root).as_posix() for path in plain_walk(root)]
            ways: dict[str, Callable[[], object]] = {
                "plain": partial(plain_walk, root),
                "listed": partial(list_files, root, IMAGE_SUFFIXES),
                "found": partial(find_images, [root]),
            }
            taken = medians(ways, rounds)
            seconds = " | ".join(f"{taken[name]:.3f} s" for name in ways)
            lines.append(f"| {num_files:,} | {folder_size:,} | {seconds} |")
            shutil.rmtree(root)
    return lines


def make_files(root: Path, num_files: int, folder_size: int) -> Path:
    """Empty files in numbered folders."""
    for number in range(num_files):
        folder = root / f"{number // folder_size:05d}"
        if number % folder_size == 0:
            folder.mkdir(parents=True)
        os.close(os.open(folder / f"image_{number:07d}.jpg", os.O_CREAT))
    return root


def plain_walk(root: Path) -> list[Path]:
    """The usual way to list images, in the order of smn."""
    from smn_cli.data.images.extensions import IMAGE_SUFFIXES

    found = []
    for folder, names, files in os.walk(root):
        names.sort()
        for name in sorted(files):
            if not name.startswith(".") and Path(name).suffix.lower() in IMAGE_SUFFIXES:
                found.append(Path(folder, name))
    return found


def read_table(folder: Path, options: argparse.Namespace) -> list[str]:
    """Images a second, loose and from shards; the files lie in the system's cache in both cases."""
    import PIL

    from smn_cli.data.images import tar as tars
    from smn_cli.data.images.decode import read_image
    from smn_cli.data.images.find import find_images

    loose = find_images([options.images])[:: max(1, len(find_images([options.images])) // options.num_read)]
    loose = loose[: options.num_read]
    shards = []
    started = time.perf_counter()
    for first in range(0, len(loose), options.shard_size):
        shards.append(folder / f"shard-{first // options.shard_size:03d}.tar")
        with tarfile.open(shards[-1], "w") as tar:
            for number, path in enumerate(loose[first : first + options.shard_size], first):
                tar.add(path, f"{number:07d}{path.suffix}")
    packed_s = time.perf_counter() - started
    started = time.perf_counter()
    packed = find_images(shards)
    index_s = time.perf_counter() - started
    time.sleep(SETTLE_S)
    tars._read_index.cache_clear()
    find_images(shards)  # writes the indexes, now that the shards have settled
    tars._read_index.cache_clear()
    started = time.perf_counter()
    assert find_images(shards) == packed
    again_s = time.perf_counter() - started
    found = medians(
        {"loose": lambda: [read_image(path) for path in loose], "tar": lambda: [read_image(path) for path in packed]},
        options.rounds,
    )
    rates = {name: len(loose) / seconds for name, seconds in found.items()}
    return [
        "",
        f"{len(loose):,} images of {options.images.parent.name}/{options.images.name} in {len(shards)} tars of "
        f"{options.shard_size:,} (packed in {packed_s:.1f} s), decoded in one process, Pillow {PIL.__version__}",
        "",
        "| | images/s |",
        "|---|---:|",
        f"| loose files | {rates['loose']:,.0f} |",
        f"| members of tars | {rates['tar']:,.0f} |",
        f"| tar / loose | {rates['tar'] / rates['loose']:.3f} |",
        "",
        f"Indexing the tars: {index_s * 1e3:.0f} ms by their headers, {again_s * 1e3:.0f} ms from the kept indexes.",
    ]


if __name__ == "__main__":
    main()
