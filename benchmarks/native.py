"""Adaptation at a backbone's native size, taught by its own stages: an experiment, which no recipe of smn has yet.

    python benchmarks/native.py --data FOLDER --work FOLDER --sets tomato flowers17

FOLDER holds sets with train/ and test/ by class. Beside base and adapted network stand the controls that need no
training: features centred, and partly whitened, fitted to the training images without labels. One line of
benchmarks/results/native.jsonl a run.
"""

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch

from smn_cli.backbones.loading import Backbone, load_backbone
from smn_cli.backbones.packaged import LITE0_ARCH, lite0_weights
from smn_cli.cli import main as smn
from smn_cli.data.labels.eval_split import load_labeled_split
from smn_cli.evaluation.compare import LabeledFeatures
from smn_cli.evaluation.intervals import paired_gain
from smn_cli.evaluation.knn import knn_predict
from smn_cli.evaluation.readouts import ReadoutKind, fit_readout
from smn_cli.features.embed import Embedding
from smn_cli.recipes import RECIPES
from smn_cli.runs.pack import change_of_run
from smn_cli.runs.run_config import versions
from smn_cli.runs.run_folder import RunFolder
from smn_cli.scoring import embed_split
from smn_cli.training.run_context import preprocessing_of

RESULTS = Path(__file__).parent / "results" / "native.jsonl"
READOUTS: tuple[ReadoutKind, ...] = ("raw", "centred", "whitened")
K = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", required=True)
    parser.add_argument("--steps", type=int, default=160)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    RECIPES["stages"] = replace(RECIPES["default"], objective="neighbourhood")
    for name in options.sets:
        row = measure(options.data / name, options.work / name, options.steps, options.seed)
        with RESULTS.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(json.dumps(row, indent=1), flush=True)


def measure(data: Path, run: Path, steps: int, seed: int) -> dict[str, object]:
    """One run, and k-NN accuracy of base and adapted features as they are, centred and partly whitened."""
    started = time.monotonic()
    weights = lite0_weights()
    words = f"adapt {data / 'train'} --arch {LITE0_ARCH} --weights {weights} --recipe stages --size 224 --batch-size 32"
    words += f" --steps {steps} --seed {seed} --keep last --overwrite --out {run}"
    try:
        smn(words.split())
    except SystemExit as end:
        if end.code:
            sys.exit(f"smn {words} ended with {end.code}")
    adapt_s = time.monotonic() - started
    backbone = load_backbone(LITE0_ARCH, weights)
    return {
        "data": data.name,
        "steps": steps,
        "seed": seed,
        "seconds": round(adapt_s),
        "k": K,
        **score(data, run, backbone),
        "versions": versions(),
    }


def score(data: Path, run: Path, backbone: Backbone) -> dict[str, object]:
    """Accuracy of base and adapted by readout, and their difference with its interval."""
    split = load_labeled_split(data)
    change = change_of_run(RunFolder.open(run), backbone)
    embedding = Embedding(preprocessing_of(backbone, 224))
    base, adapted = (right_answers(each) for each in embed_split(backbone, [change], split, embedding))
    rows: dict[str, object] = {}
    for kind in READOUTS:
        gain = paired_gain(base[kind], adapted[kind])
        accuracies = [round(float(right.double().mean()), 4) for right in (base[kind], adapted[kind])]
        rows[kind] = {"base": accuracies[0], "adapted": accuracies[1], "low": gain.low, "high": gain.high}
    return rows


def right_answers(features: LabeledFeatures) -> dict[str, torch.Tensor]:
    """Which test images k-NN gets right, by readout."""
    right: dict[str, torch.Tensor] = {}
    num_classes = int(torch.cat([features.train_labels, features.test_labels]).max()) + 1
    for kind in READOUTS:
        readout = fit_readout(features.train, kind)
        found = knn_predict(
            readout(features.train), features.train_labels, readout(features.test), ks=[K], num_classes=num_classes
        )
        right[kind] = found[K] == features.test_labels
    return right


if __name__ == "__main__":
    main()
