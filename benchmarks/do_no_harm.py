"""Runs that must end in the identity mask, each with its alarm, at the backbone's own size.

    python benchmarks/do_no_harm.py --work FOLDER

Pure noise; 64 copies of one image; scikit-learn's digits, whose classes a small picture shows, as they are, and
enlarged to the backbone's size with a score learning rate a thousand times too high.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from smn_cli.backbones.packaged import LITE0_ARCH, lite0_weights
from smn_cli.datasets.digits import write_digits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    work = parser.parse_args().work
    generator = np.random.default_rng(0)
    noise, copies, digits = work / "noise", work / "copies", work / "digits"
    for folder in (noise, copies):
        folder.mkdir(parents=True, exist_ok=True)
    for number in range(256):
        Image.fromarray(generator.integers(0, 256, (224, 224, 3), dtype=np.uint8)).save(noise / f"{number}.png")
    write_digits(digits)
    large = work / "large"
    large.mkdir(exist_ok=True)
    for path in sorted((digits / "train").rglob("*.png")):
        Image.open(path).resize((224, 224), Image.Resampling.BICUBIC).save(large / f"{path.parent.name}-{path.name}")
    picture = Image.open(next(large.iterdir()))
    for number in range(64):
        picture.save(copies / f"{number}.png")
    for name, folder, extra in (
        ("pure noise", noise, []),
        ("64 copies of one image", copies, []),
        ("small images", digits / "train", []),
        ("score learning rate x 1000", large, ["--lr-scores", "30", "--steps", "100"]),
    ):
        report(name, folder, work, extra)


def report(name: str, images: Path, work: Path, extra: list[str]) -> None:
    words = ["adapt", str(images), "--arch", LITE0_ARCH, "--weights", str(lite0_weights()), "--out", str(work / "run")]
    command = [sys.executable, "-m", "smn_cli", *words, "--overwrite", "--json", "-", *extra]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    result = json.loads(done.stdout)
    print(
        f"| {name} | {'identity' if result['identity'] else 'MASK KEPT'} | {result['steps']} "
        f"| {'; '.join(result['alarms'])} | {result['seconds']:.0f} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
