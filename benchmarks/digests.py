"""Whether a change left all results as they were: SHA-256 of packed adapters and of every JSON, of short seeded runs.

    python benchmarks/digests.py --work FOLDER > before.txt      # on the commit before, then on the one after
    diff before.txt after.txt

Weights and images are made here from seeds. One machine, one set of library versions, one FOLDER name: digests of
other machines differ, since sums round in another order. What time and memory say in a JSON is left out.
"""

import argparse
import contextlib
import hashlib
import io
import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

from smn_cli.cli import main as smn_main

NET, VIT = "test_resnet", "test_vit"
SMALL = "--size 32 --batch-size 8 --steps 3 --seed 1 --precision fp32"
LAST = f"{SMALL} --keep last"
RUNS: dict[str, tuple[str, str, str]] = {
    "default": (NET, "images", f"{SMALL} --teacher-size 48"),
    "default-last": (NET, "images", f"{LAST} --teacher-size 48"),
    "default-vit": (VIT, "images", f"{LAST} --teacher-size 32 --lr-scores .3"),
    "native": (NET, "images", f"{LAST} --teacher stages --steps 40 --lr-scores .3 --cache-trunk off"),
    "native-cached": (NET, "images", f"{LAST} --teacher stages --steps 40 --lr-scores .3 --cache-trunk 1GB"),
    "swav": (NET, "images", f"{LAST} --recipe swav --lr-scores 1"),
    "paper": (NET, "images", f"{LAST} --recipe paper --local-views 1 --prototypes 8 --queue 16 --lr-scores 500"),
    "supervised": (NET, "classes", f"{LAST} --labels folders --lr-scores .3"),
    "supervised-best": (NET, "classes", f"{SMALL} --labels folders"),
    "supervised-paper": (NET, "classes", f"{LAST} --labels folders --recipe paper --lr-scores 500"),
    "topk": (NET, "images", f"{LAST} --mask-kind topk --density .8 --density-start 1 --teacher-size 48"),
    "random-part": (NET, "images", f"{LAST} --mask-only random:.5 --mask-only blocks:3 --lr-scores .3"),
    "norm-stats": (NET, "images", f"{LAST} --norm-stats adapt --lr-scores .3"),
    "norm-only": (NET, "images", f"{LAST} --train norm"),
    "judged-by-labels": (NET, "images", f"{SMALL} --val classes"),
    "from-a-start": (NET, "images", f"{LAST} --start run/default-last --lr-scores .3"),
}
TIMES = {
    "seconds", "step_s", "images_per_s", "measured_steps", "memory_bytes", "run_folder_bytes", "milliseconds",
    "images_per_second", "rebuild_s", "apply_s",
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    work = parser.parse_args().work.absolute()
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    os.chdir(work)
    os.environ["SMN_CACHE_HOME"] = os.devnull
    torch.set_num_threads(2)
    make_inputs()
    for name, digest in digests():
        print(f"{digest}  {name}", flush=True)


def digests() -> Iterator[tuple[str, str]]:
    """Name and SHA-256 of every result."""
    for name, (arch, images, settings) in RUNS.items():
        words = f"adapt {images} --arch {arch} --weights {arch}.safetensors --out run/{name} {settings}"
        yield f"{name}: adapt JSON", smn(words)
        yield f"{name}: pack JSON", smn(f"pack run/{name} --out {name}.adapter")
        yield f"{name}: adapter", of_file(Path(f"{name}.adapter"))
        yield f"{name}: metrics", of_file(Path("run", name, "metrics.jsonl"))
    base = f"--weights {NET}.safetensors"
    yield "full: adapt JSON", smn(f"adapt images --arch {NET} {base} --out run/full {LAST} --train full")
    yield "full: eval JSON", smn(f"eval classes --run run/full {base} --knn --linear --no-controls --k 3")
    first, second = "default-last.adapter", "topk.adapter"
    plain = f"{base} --knn --no-controls --k 3"  # controls tell milliseconds
    yield "plan JSON", smn(f"plan images --arch {NET} {base} {LAST}")
    yield (
        "eval JSON",
        smn(f"eval classes --adapter {first} --adapter {second} {plain} --linear --k 5"),
    )
    yield (
        "eval of few labels JSON",
        smn(f"eval classes --adapter {first} {plain} --label-fraction 1,.5"),
    )
    yield (
        "eval with a classifier JSON",
        smn(f"eval classes --adapter supervised.adapter {plain}"),
    )
    yield "inspect JSON", smn(f"inspect {first}")
    yield "verify JSON", smn(f"verify {first} {base}")
    yield "diff JSON", smn(f"diff {first} {second} {base}")
    yield "merge JSON", smn(f"merge {first} {second} {base} --how and --out merged.adapter")
    yield "merged adapter", of_file(Path("merged.adapter"))
    yield "apply JSON", smn(f"apply {first} {base} --out applied.safetensors")
    yield "applied checkpoint", of_file(Path("applied.safetensors"))
    yield "embed JSON", smn(f"embed images --adapter {first} {base} --out features.npy")
    yield "features", of_file(Path("features.npy"))
    cascade = f"cascade --run run/default-last {base} --out cascade --experts 2 --steps 2 --seed 1 --keep last"
    yield "cascade JSON", smn(cascade)
    yield "cascade", of_file(Path("cascade", "cascade.safetensors"))
    yield "eval of a cascade JSON", smn(f"eval classes --adapter cascade/cascade.safetensors {base} --knn --k 3")
    yield "inspect of a cascade JSON", smn("inspect cascade/cascade.safetensors")


def smn(words: str) -> str:
    """Run a command that has to work; the digest of its JSON."""
    talk = io.StringIO()
    with contextlib.redirect_stdout(talk), contextlib.redirect_stderr(talk):
        try:
            smn_main([*words.split(), *(["--device", "cpu"] if takes_device(words) else []), "--json", "out.json"])
        except SystemExit as end:
            code = end.code
    if code:
        sys.exit(f"smn {words}\n{talk.getvalue()}")
    content = json.loads(Path("out.json").read_text())
    return of_bytes(json.dumps(without_times(content), indent=1).encode())


def takes_device(words: str) -> bool:
    """Whether that command can compute elsewhere than on the CPU."""
    return words.split()[0] in ("adapt", "plan", "eval", "embed", "cascade")


def without_times(value: Any) -> Any:
    """The same without what depends on the moment."""
    if isinstance(value, dict):
        return {key: without_times(inner) for key, inner in value.items() if key not in TIMES}
    return [without_times(inner) for inner in value] if isinstance(value, list) else value


def of_file(path: Path) -> str:
    """Digest of a file."""
    return of_bytes(path.read_bytes())


def of_bytes(data: bytes) -> str:
    """SHA-256."""
    return hashlib.sha256(data).hexdigest()


def make_inputs() -> None:
    """Weights of two networks, 40 images, and three classes of images that colour tells apart."""
    for arch in (NET, VIT):
        torch.manual_seed(0)
        state = timm.create_model(arch, pretrained=False).state_dict()
        for name, tensor in state.items():
            if name.endswith("running_mean"):
                tensor.uniform_(-0.1, 0.1)
            elif name.endswith("running_var"):
                tensor.uniform_(0.5, 1.5)
            elif tensor.ndim == 1 and not tensor.any() and name.endswith("weight"):
                tensor.fill_(0.5)
        save_file(state, f"{arch}.safetensors")
    write_images(Path("images"), 80, seed=9)
    for label, name in enumerate(("red", "green", "blue")):
        write_images(Path("classes", "train", name), 30, seed=label, colour=label)
        write_images(Path("classes", "test", name), 10, seed=10 + label, colour=label)


def write_images(folder: Path, num_images: int, *, seed: int, colour: int | None = None) -> None:
    """A ground of one colour with some noise, and a square on it."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(seed)
    for number in range(num_images):
        pixels = generator.integers(0, 40, (48, 48, 3), dtype=np.uint8) + generator.integers(0, 160, 3, dtype=np.uint8)
        top, left = generator.integers(0, 24, 2)
        channel = int(generator.integers(0, 3)) if colour is None else colour
        pixels[top : top + 24, left : left + 24, channel] = 255
        Image.fromarray(pixels).save(folder / f"{number:03d}.png")


if __name__ == "__main__":
    main()
