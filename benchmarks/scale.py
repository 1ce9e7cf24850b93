"""A million images in a thousand tars on two processes: does memory stay flat?

    python benchmarks/scale.py --images FOLDER --work FOLDER [--tars 1000] [--out FILE]

The tars, their index and the loader are real: JPEGs of `--side` px are made of FOLDER's images, packed again and again
under names of their own, found, and loaded over all of them. What would take days is simulated: the teachers' features
and the memory are random rows of EfficientNet-Lite0's widths, and a network of timm's test models takes the steps, two
gloo processes with one thread each. Memory is what the system says of each process: its own (RssAnon), mapped files
(RssFile), which can be dropped, and shared (RssShmem); of a loader process what it shares with nobody (Private_Dirty).
Everything made is removed.
"""

import argparse
import io
import os
import resource
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

A_TAR = 1000
ARCH, BATCH, EVERY, WORKERS = "test_efficientnet.r160_in1k", 32, 20, 1
WIDTH, STAGES, TAUGHT, NEIGHBOURS = 1280, 1408, 256, 100
SETTLE_S = 2.5
Memory = dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--tars", type=int, default=1000)
    parser.add_argument("--side", type=int, default=96)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--role", choices=["all", "index", "rows", "train"], default="all", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.role != "all":
        {"index": index, "rows": rows, "train": train}[options.role](options)
        return
    options.work.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=options.work))
    try:
        text = "\n".join(report(folder, options))
    finally:
        shutil.rmtree(folder)
    print(text)
    if options.out is not None:
        options.out.write_text(text + "\n")


def report(folder: Path, options: argparse.Namespace) -> list[str]:
    """Markdown, line by line."""
    num_images = options.tars * A_TAR
    num_bytes, packed_s = pack(folder / "tars", options)
    time.sleep(SETTLE_S)
    lines = [
        f"{num_images:,} JPEGs of {options.side} px in {options.tars:,} tars, {num_bytes / 1e9:.1f} GB, packed in "
        f"{packed_s:.0f} s; {os.cpu_count()} shared CPU cores\n",
        "| | seconds | own memory | mapped | shared | its loader's own |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for part in (options.tars // 20, options.tars):
        for way in ("by headers", "kept index"):
            lines += role("index", folder, part, options.steps, f"{part * A_TAR:,} found, {way}")
    lines += role("rows", folder, options.tars, options.steps)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return lines + role("train", folder, options.tars, options.steps, launcher=launcher)


def role(
    name: str, folder: Path, tars: int, steps: int, title: str = "", launcher: list[str] | None = None
) -> list[str]:
    """What a part of this script prints in a process of its own."""
    words = [*(launcher or []), __file__, "--role", name, "--work", folder, "--tars", tars, "--steps", steps]
    variables = {**os.environ, "OMP_NUM_THREADS": "1", "SMN_CACHE_HOME": str(folder / f"cache{tars}")}
    done = subprocess.run([sys.executable, *map(str, words)], capture_output=True, text=True, env=variables)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return [line.replace("TITLE", title) for line in done.stdout.splitlines() if line.startswith("|")]


def pack(folder: Path, options: argparse.Namespace) -> tuple[int, float]:
    """Tars of JPEGs, 200 different ones in turn; their bytes and the seconds."""
    from PIL import Image

    from smn_cli.data.images.find import find_images

    started = time.monotonic()
    bodies = []
    found = find_images([options.images])
    for path in found[:: max(1, len(found) // 200)][:200]:
        buffer = io.BytesIO()
        Image.open(path).convert("RGB").resize((options.side, options.side)).save(buffer, "JPEG", quality=85)
        bodies.append(buffer.getvalue())
    folder.mkdir()
    number = 0
    for tar in range(options.tars):
        with (folder / f"{tar:05d}.tar").open("wb") as file:
            for _ in range(A_TAR):
                body = bodies[number % len(bodies)]
                header = tarfile.TarInfo(f"{number:08d}.jpg")
                header.size = len(body)
                file.write(header.tobuf(tarfile.USTAR_FORMAT) + body + bytes(-len(body) % 512))
                number += 1
            file.write(bytes(1024))
    return sum(path.stat().st_size for path in folder.iterdir()), time.monotonic() - started


def memory() -> Memory:
    """Megabytes of this process, as Linux counts them, and those that its loader processes do not share with it."""
    lines = [line.split() for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("Rss")]
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    maps = [Path(f"/proc/{child}/smaps_rollup").read_text().splitlines() for child in children]
    private = [int(line.split()[1]) for each in maps for line in each if line.startswith("Private_Dirty")]
    return {words[0][3:-1]: int(words[1]) / 1e3 for words in lines} | {"loaders": sum(private) / 1e3}


def row(what: str, seconds: float, found: Memory) -> None:
    sizes = " | ".join(f"{found[name]:,.0f} MB" for name in ("Anon", "File", "Shmem", "loaders"))
    print(f"| {what} | {seconds:.1f} s | {sizes} |", flush=True)


def index(options: argparse.Namespace) -> None:
    """Find the images of some tars."""
    from smn_cli.data.images.find import find_images

    started = time.monotonic()
    found = find_images(sorted((options.work / "tars").iterdir())[: options.tars])
    assert len(found) == options.tars * A_TAR
    row("TITLE", time.monotonic() - started, memory())


def rows(options: argparse.Namespace) -> None:
    """What is made of the teachers' features before the first step; the features are random."""
    import torch

    from smn_cli.evaluation.readouts import fit_stage_readout
    from smn_cli.features.row_store import fill, room_for_rows
    from smn_cli.objectives.neighbourhood import _memory_of
    from smn_cli.runs.checked_files import write_tensors
    from smn_cli.training.teachers import _joined_rows, _read_out

    folder, num_images = options.work, options.tars * A_TAR
    some = torch.randn(1 << 14, WIDTH + STAGES, generator=torch.Generator().manual_seed(0)).relu()

    def timed(what: str, make: Callable[[], torch.Tensor]) -> torch.Tensor:
        started = time.monotonic()
        made = make()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
        row(f"{what} (all memory at most {peak:,.0f} MB)", time.monotonic() - started, memory())
        return made

    def embed() -> torch.Tensor:
        room = room_for_rows(num_images, WIDTH + STAGES, folder)
        for first in range(0, num_images, len(some)):
            fill(room, first, some[: num_images - first])
        return room

    features = timed("features of last layer and stages, simulated", embed)
    stages = features[:, WIDTH:]
    taught = timed("read out", lambda: _joined_rows([_read_out(fit_stage_readout(stages), stages, folder)], folder))
    start = timed("memory at the start", lambda: _memory_of(features[:, :WIDTH])[0])
    generator = torch.Generator().manual_seed(1)
    places = torch.randint(1, num_images, (num_images, NEIGHBOURS), generator=generator, dtype=torch.int32)
    places.add_(torch.arange(num_images, dtype=torch.int32)[:, None]).remainder_(num_images)  # nobody's own
    shares = torch.full((num_images, NEIGHBOURS), 1 / NEIGHBOURS)
    small = start[:, : own_width()].contiguous()
    write_tensors(folder / "objective", {"places": places, "shares": shares, "memory": small, "mean": torch.zeros(1)})
    assert taught.dtype == torch.half


def own_width() -> int:
    """Of the network that takes the steps."""
    import timm

    return int(timm.create_model(ARCH, num_classes=0).num_features)


def train(options: argparse.Namespace) -> None:
    """Steps of one of two processes over all images, neighbours at random."""
    import timm
    import torch

    from smn_cli.config.options import AdaptOptions
    from smn_cli.data.images.find import find_images
    from smn_cli.data.views.loader import ViewLoader
    from smn_cli.distributed import team_of
    from smn_cli.features.row_store import MANY
    from smn_cli.objectives.neighbourhood import NeighbourhoodObjective
    from smn_cli.runs.checked_files import read_tensors
    from smn_cli.training.planning import make_plan
    from smn_cli.training.trainer import Trainer, make_source

    with team_of("cpu") as team:
        paths = team.from_first(lambda: find_images([options.work / "tars"]))
        plan = make_plan(AdaptOptions(steps=options.steps, batch_size=BATCH), len(paths), native_size=160)
        plan = replace(plan, norm_stats="frozen")
        torch.manual_seed(0)
        model = timm.create_model(ARCH, num_classes=0).eval().requires_grad_(False)
        prepared = read_tensors(options.work / "objective") | {"mean": torch.zeros(own_width())}
        objective = NeighbourhoodObjective(
            prepared, temperature=plan.temperature, device=torch.device("cpu"), team=team
        )
        assert objective.has_many == (len(paths) > MANY)
        trainer = Trainer(make_source(model, plan), objective, plan, lambda pixels: pixels.float() / 128 - 1, team)
        loader = ViewLoader(paths, plan.views, BATCH, 0, WORKERS, (team.rank, team.size))
        started = time.monotonic()
        for report in trainer.run(loader.batches(0, options.steps)):
            if report.step % EVERY == 0 or report.step == 1:
                for rank in range(team.size):
                    if rank == team.rank:
                        row(f"step {report.step}, process {rank}", time.monotonic() - started, memory())
                    team.wait()


if __name__ == "__main__":
    main()
