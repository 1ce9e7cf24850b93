"""Who could teach at native size: accuracy of each frozen space, and what is told of it without labels.

    python benchmarks/teachers.py --data FOLDER --work FOLDER --lite1 FILE --lite2 FILE --sets tomato flowers17

FOLDER holds sets with train/ and test/ by class; at most 1,000 and 500 images, drawn by seed. Lite0's last layer and
stages at 224 px, Lite1 at 240, Lite2 at 260, and joined spaces; all partly whitened on the training images. Beside k-NN
accuracy stands view consistency (`smn_cli.evaluation.view_consistency`) of 500 training images, which needs no labels.
Features are kept in the work folder, so that the table can be made again.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from smn_cli.backbones.folding import fold
from smn_cli.backbones.loading import load_backbone
from smn_cli.backbones.packaged import LITE0_ARCH, lite0_weights
from smn_cli.backbones.stages import with_stages
from smn_cli.data.labels.eval_split import LabeledSplit, load_labeled_split
from smn_cli.data.views.loader import image_batches
from smn_cli.evaluation.features import on_device
from smn_cli.evaluation.intervals import paired_difference
from smn_cli.evaluation.knn import knn_predict
from smn_cli.evaluation.readouts import Readout, fit_readout, fit_stage_readout
from smn_cli.evaluation.view_consistency import corner_crops, view_consistency
from smn_cli.training.run_context import preprocessing_of
from smn_cli.training.teachers import joined_space

NUM_VIEWS = 500
JOINED = {
    "stages + last": ("stages", "last"),
    "stages + lite2": ("stages", "lite2"),
    "all": ("stages", "last", "lite1", "lite2"),
}
COLUMNS = ("last", "stages", "lite1", "lite2", *JOINED)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--lite1", type=Path, required=True)
    parser.add_argument("--lite2", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", required=True)
    parser.add_argument("--precision", default="fp32")
    options = parser.parse_args()
    print(f"| set | last layer as it is | {' | '.join(COLUMNS)} | told without labels |")
    print("|" + "---|" * (len(COLUMNS) + 3))
    for name in options.sets:
        split = load_labeled_split(options.data / name, max_train=1000, max_test=500)
        path = options.work / f"{name}.pt"
        if not path.exists():
            torch.save(embed_all(split, options), path)
        print(row(name, split, torch.load(path, weights_only=True)), flush=True)


def embed_all(split: LabeledSplit, options: argparse.Namespace) -> dict[str, Tensor]:
    """Features of all images, and of two views of the first training images, by network."""
    nets = {"last": (LITE0_ARCH, lite0_weights())}
    nets |= {f"lite{n}": (f"tf_efficientnet_lite{n}", getattr(options, f"lite{n}")) for n in (1, 2)}
    found: dict[str, Tensor] = {}
    paths = [*split.train_paths, *split.test_paths]
    for name, (arch, weights) in nets.items():
        backbone = load_backbone(arch, weights)
        network = fold(backbone.model, backbone.native_size).network.to(memory_format=torch.channels_last)
        both, width = with_stages(network), backbone.num_features

        def joined(batch: Tensor, both: Callable[..., tuple[Tensor, Tensor]] = both) -> Tensor:
            return torch.cat([each.float() for each in both(batch)], dim=1)

        run = on_device(joined, torch.device("cpu"), options.precision)
        preprocessing = preprocessing_of(backbone, backbone.native_size)
        with torch.inference_mode():
            whole = torch.cat([run(batch) for batch in image_batches(paths, preprocessing)])
            crops = [corner_crops(batch) for batch in image_batches(split.train_paths[:NUM_VIEWS], preprocessing)]
            views = [torch.cat([run(pair[side]) for pair in crops]) for side in (0, 1)]
        for key, part in (
            (name, slice(None, width)),
            ("stages" if name == "last" else f"{name} stages", slice(width, None)),
        ):
            found |= {key: whole[:, part], f"{key} view 0": views[0][:, part], f"{key} view 1": views[1][:, part]}
    return found


def row(name: str, split: LabeledSplit, found: dict[str, Tensor]) -> str:
    """One set: k-NN 20 (200) of each space, in brackets behind it the view consistency and its interval over `last`."""
    num_train = len(split.train_paths)
    train_labels, labels = torch.tensor(split.train_labels), torch.tensor(split.test_labels)

    def fitted(key: str, rows: Tensor) -> Readout:
        return fit_stage_readout(rows) if key.endswith("stages") else fit_readout(rows, "whitened")

    spaces, views = {}, {}
    for key in ("last", "stages", "lite1", "lite2"):
        spaces[key] = fitted(key, found[key][:num_train])(found[key])
        both = torch.cat([found[f"{key} view {side}"] for side in (0, 1)])
        views[key] = fitted(key, both)(both).chunk(2)
    for key, parts in JOINED.items():
        spaces[key] = joined_space([spaces[part] for part in parts])
        views[key] = tuple(joined_space([views[part][side] for part in parts]) for side in (0, 1))
    spaces["as it is"] = found["last"]
    cells = {}
    consistency = {key: view_consistency(*pair) for key, pair in views.items()}
    for key, space in spaces.items():
        predicted = knn_predict(
            space[:num_train], train_labels, space[num_train:], ks=[20, 200], num_classes=len(split.classes)
        )
        near, far = (float((predicted[k] == labels).double().mean()) for k in (20, 200))
        cells[key] = f"{near:.3f} ({far:.3f})"
        if key in consistency:
            cells[key] += f" [{float(consistency[key].mean()):.3f}]"
    gain = paired_difference(consistency["last"], consistency["stages"])
    told = f"{'stages' if gain.low > 0 else 'nobody'}: {gain.value:+.3f} ({gain.low:+.3f} to {gain.high:+.3f})"
    return f"| {name} | {cells['as it is']} | {' | '.join(cells[key] for key in COLUMNS)} | {told} |"


if __name__ == "__main__":
    main()
