"""Views a second of the loader beside the usual pipeline: one PIL image, one view, one transform after the other.

    python benchmarks/loader.py --images clothing=FOLDER --images cifar10=FOLDER [--out FILE]
    python benchmarks/loader.py --images tomato=FOLDER --size 224

Both give the same views of the same files, normalised and channels last, on the CPU; the colour and blur that smn
computes for whole batches count. Epoch by epoch in one process, the two in turns; medians over the rounds.
"""

import argparse
import os
import platform
import statistics
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import NamedTuple

from smn_cli.process import settle_process

settle_process()  # as the command does, before torch is loaded

import PIL  # noqa: E402
import torch  # noqa: E402
import torchvision  # noqa: E402
from PIL import Image  # noqa: E402
from torch import Tensor  # noqa: E402
from torch.utils.data import DataLoader, Dataset  # noqa: E402
from torchvision.transforms import v2  # noqa: E402

from smn_cli.data.preprocessing import Preprocessing  # noqa: E402
from smn_cli.data.views.augmentation import augment  # noqa: E402
from smn_cli.data.views.loader import ViewLoader  # noqa: E402
from smn_cli.recipes import RECIPES, ViewPlan  # noqa: E402

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def plans(size: int) -> dict[str, ViewPlan]:
    """SwAV's views, and the default's, which above 64 px are those of the native size."""
    small, default = size // 2 // 16 * 16, RECIPES["default"]
    one = replace(default.views, global_size=size)
    return {
        f"2 x {size} + 6 x {small} px, all steps": ViewPlan(
            2, size, (0.14, 1.0), 6, small, (0.05, 0.14), (0.8, 0.8, 0.8, 0.2), 0.8, 0.2, 0.5
        ),
        f"default: 1 x {size} px, crop and flip": replace(one, global_area=default.native_area) if size > 64 else one,
    }


class Times(NamedTuple):
    """Seconds on the clock, and of all threads of this process on a core."""

    wall: float
    cpu: float


def now() -> Times:
    return Times(time.perf_counter(), time.process_time())


def since(start: Times) -> Times:
    return Times(*(later - earlier for later, earlier in zip(now(), start, strict=True)))


class CentreSquare(torch.nn.Module):
    """The middle of an image."""

    def forward(self, image: Image.Image) -> Image.Image:
        return v2.functional.center_crop(image, [min(image.size)])


class UsualDataset(Dataset):
    """One image after the other, all its views, as the tutorials write it."""

    def __init__(self, paths: list[Path], plan: ViewPlan) -> None:
        self.paths = paths
        large = usual_view(plan, plan.global_size, plan.global_area)
        small = usual_view(plan, plan.local_size, plan.local_area)
        self.transforms = [large] * plan.num_global + [small] * plan.num_local

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> list[Tensor]:
        with Image.open(self.paths[index]) as file:
            image = file.convert("RGB")
        return [transform(image) for transform in self.transforms]


def usual_view(plan: ViewPlan, size: int, area: tuple[float, float]) -> v2.Transform:
    """torchvision's transforms on PIL images, in the order of SwAV."""
    kernel = max(3, min(13, size // 16 * 2 + 1))
    steps: list = [CentreSquare()] if plan.from_centre_square else []
    steps += [v2.RandomResizedCrop(size, scale=area, ratio=plan.aspect), v2.RandomHorizontalFlip(plan.flip_probability)]
    if plan.jitter_probability:
        steps.append(v2.RandomApply([v2.ColorJitter(*plan.jitter)], plan.jitter_probability))
    if plan.grey_probability:
        steps.append(v2.RandomGrayscale(plan.grey_probability))
    if plan.blur_probability:
        steps.append(v2.RandomApply([v2.GaussianBlur(kernel, plan.blur_sigma)], plan.blur_probability))
    return v2.Compose([*steps, v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)])


def usual_epochs(paths: list[Path], plan: ViewPlan, batch_size: int, workers: int, epochs: int) -> Iterator[Times]:
    """Of every epoch."""
    loader = DataLoader(
        UsualDataset(paths, plan), batch_size, shuffle=True, num_workers=workers, persistent_workers=workers > 0
    )
    for _ in range(epochs):
        started = now()
        for views in loader:
            for group in (views[: plan.num_global], views[plan.num_global :]):
                if group:
                    torch.cat(group).contiguous(memory_format=torch.channels_last)
        yield since(started)


def smn_epochs(paths: list[Path], plan: ViewPlan, batch_size: int, workers: int, epochs: int) -> Iterator[Times]:
    """Of every epoch."""
    normalize = Preprocessing(64, MEAN, STD).normalize
    steps = len(paths) // batch_size
    batches = ViewLoader(paths, plan, batch_size, 0, workers).batches(0, epochs * steps)
    num_views = plan.num_global + plan.num_local
    for _ in range(epochs):
        started = now()
        for _, batch in zip(range(steps), batches, strict=False):
            for first, last in ((0, plan.num_global), (plan.num_global, num_views)):
                if first < last:
                    pixels = torch.cat(batch.views[first:last])
                    changed = augment(pixels, batch.changes.views(first, last), plan)
                    normalize(changed).contiguous(memory_format=torch.channels_last)
        yield since(started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", action="append", required=True, metavar="NAME=FOLDER")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--num-images", type=int, default=512)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.manual_seed(0)
    lines = [*heading(options)]
    for name, folder in (words.split("=", 1) for words in options.images):
        every = sorted(path for path in Path(folder).rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
        paths = every[:: max(1, len(every) // options.num_images)][: options.num_images]
        for plan_name, plan in plans(options.size).items():
            for workers in (0, 2):
                lines.append(compare(name, paths, plan_name, plan, workers, options))
                print(lines[-1], flush=True)
    if options.out is not None:
        options.out.write_text("\n".join(lines) + "\n")


def compare(
    name: str, paths: list[Path], plan_name: str, plan: ViewPlan, workers: int, options: argparse.Namespace
) -> str:
    """One row of the table."""
    arguments = (paths, plan, options.batch_size, workers, options.epochs)
    num_views = len(paths) // options.batch_size * options.batch_size * (plan.num_global + plan.num_local)
    usual, own = [], []
    for _ in range(options.rounds):
        usual.append(list(usual_epochs(*arguments)))
        own.append(list(smn_epochs(*arguments)))
    cells = []
    for chosen in (slice(0, 1), slice(1, None)):
        rates = [[num_views / mean(times.wall for times in rounds[chosen]) for rounds in side] for side in (usual, own)]
        ratios = [mine / theirs for theirs, mine in zip(*rates, strict=True)]
        cells += [f"{statistics.median(rate):,.0f}" for rate in rates]
        cells.append(f"{statistics.median(ratios):.1f} ({min(ratios):.1f}-{max(ratios):.1f})")
    # the time of other processes is not known before they end
    cpu = [
        statistics.median(mean(times.cpu for times in rounds[1:]) / num_views for rounds in side)
        for side in (usual, own)
    ]
    cells.append(f"{cpu[0] * 1e6:.0f} / {cpu[1] * 1e6:.0f} = {cpu[0] / cpu[1]:.1f}" if not workers else "")
    return f"| {name} | {plan_name} | {workers} | " + " | ".join(cells) + " |"


def heading(options: argparse.Namespace) -> list[str]:
    return [
        "# The loader",
        "",
        "    python benchmarks/loader.py "
        + " ".join(f"--images {words.split('=', 1)[0]}=FOLDER" for words in options.images)
        + f" --num-images {options.num_images} --batch-size {options.batch_size} --rounds {options.rounds}"
        + f" --epochs {options.epochs} --size {options.size}",
        "",
        f"Views a second on {os.cpu_count()} shared CPU cores ({platform.machine()}), seed 0; "
        f"torch {torch.__version__}, torchvision {torchvision.__version__}, Pillow {PIL.__version__}, "
        f"Python {platform.python_version()}.",
        "The usual pipeline (torchvision v2 on PIL images, image by image) and smn's in turns, the same views of the",
        "same files, ready for the network. The first epoch starts the workers and decodes all files. Ratios: the",
        "median of the rounds, and the least and the most. Last column: microseconds of CPU time a view in later",
        "epochs, usual / smn, which other jobs on the machine disturb less.",
        "",
        "| images | views | workers | usual, first | smn, first | ratio | usual, later | smn, later | ratio | CPU µs |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip


if __name__ == "__main__":
    main()
