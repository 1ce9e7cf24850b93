"""How many stages teach, and at which power: accuracy of the frozen spaces, without any training.

    python benchmarks/stage_spaces.py --data FOLDER --sets tomato flowers17

FOLDER holds sets with train/ and test/ by class; at most 1,000 and 500 images. Lite0 at 224 px. Means and deviations of
the last blocks are standardised and partly whitened on the training images, as `fit_stage_readout` does with four
blocks and the power one half; k-NN 20 (200).
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor

from smn_cli.backbones.folding import fold
from smn_cli.backbones.loading import load_backbone
from smn_cli.backbones.packaged import LITE0_ARCH, lite0_weights
from smn_cli.backbones.stages import stage_features
from smn_cli.data.labels.eval_split import LabeledSplit, load_labeled_split
from smn_cli.data.views.loader import image_batches
from smn_cli.evaluation.features import on_device
from smn_cli.evaluation.knn import knn_predict
from smn_cli.evaluation.readouts import POWER, fit_readout
from smn_cli.training.run_context import preprocessing_of

NUM_STAGES, POWERS = (1, 2, 3, 4, 5, 6), (0.0, 0.25, 0.75, 1.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", required=True)
    parser.add_argument("--precision", default="fp32")
    options = parser.parse_args()
    columns = [f"last {num}" for num in NUM_STAGES] + [f"4, power {power}" for power in POWERS]
    print(f"| set | {' | '.join(columns)} |\n|" + "---|" * (len(columns) + 1))
    for name in options.sets:
        split = load_labeled_split(options.data / name, max_train=1000, max_test=500)
        stages = embedded(split, options.precision)
        cells = [accuracy(split, stages, num, POWER) for num in NUM_STAGES]
        cells += [accuracy(split, stages, 4, power) for power in POWERS]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def embedded(split: LabeledSplit, precision: str) -> dict[int, Tensor]:
    """(N, D) stages of all images, by how many of the last blocks."""
    backbone = load_backbone(LITE0_ARCH, lite0_weights())
    network = fold(backbone.model, backbone.native_size).network.to(memory_format=torch.channels_last)
    image = torch.zeros(1, 3, backbone.native_size, backbone.native_size)
    with torch.no_grad():
        widths = {num: stage_features(network, num)(image).shape[1] for num in NUM_STAGES}
    run = on_device(stage_features(network, max(NUM_STAGES)), torch.device("cpu"), precision)
    with torch.inference_mode():
        batches = image_batches(
            [*split.train_paths, *split.test_paths], preprocessing_of(backbone, backbone.native_size)
        )
        rows = torch.cat([run(batch).float() for batch in batches])
    return {num: rows[:, -width:] for num, width in widths.items()}


def accuracy(split: LabeledSplit, stages: dict[int, Tensor], num_stages: int, power: float) -> str:
    """k-NN 20 (200) of a space."""
    rows, num_train = stages[num_stages], len(split.train_paths)
    known = rows[:num_train]
    rows = (rows - known.mean(dim=0)) / known.std(dim=0, correction=0).clamp_min(1e-5)
    space = fit_readout(rows[:num_train], "whitened", power=power)(rows)
    labels = torch.tensor(split.test_labels)
    predicted = knn_predict(
        space[:num_train],
        torch.tensor(split.train_labels),
        space[num_train:],
        ks=[20, 200],
        num_classes=len(split.classes),
    )
    near, far = (float((predicted[k] == labels).double().mean()) for k in (20, 200))
    return f"{near:.3f} ({far:.3f})"


if __name__ == "__main__":
    main()
