"""Adaptation at a backbone's native size: what a user gets, beside controls that need no training.

    python benchmarks/native.py --data FOLDER --work FOLDER --sets tomato flowers17 --seeds 0 1 2
    python benchmarks/native.py --data FOLDER --work FOLDER --sets tomato --size 96     # and other sizes
    python benchmarks/native.py --data FOLDER --work FOLDER --sets flowers17 --folds 3  # all images test, in turn
    python benchmarks/native.py --data FOLDER --work FOLDER --sets tomato --arch resnet18 --weights FILE --results FILE
    python benchmarks/native.py --table
    python benchmarks/native.py --cost 64 96 128 160 224                                            # on quiet cores
    python benchmarks/native.py --picture

FOLDER holds sets with train/ and test/ by class, of which at most --max-train and --max-test images are used, the same
for every run. A run is `smn adapt` with what its arm says (ARMS) and nothing else but its length. Base and adapted
features are scored as they are, centred and partly whitened (fitted to the training images without labels), and by the
linear probe; every gain has its paired 95 % interval. One line of benchmarks/results/native.jsonl a run; --table prints
them as Markdown; those of folds with one interval over all.
"""

import argparse
import itertools
import json
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib
import numpy
import torch
from matplotlib import pyplot
from sklearn.model_selection import StratifiedKFold

from smn_cli.backbones.loading import Backbone, load_backbone
from smn_cli.backbones.packaged import LITE0_ARCH, lite0_weights
from smn_cli.cli import main as smn
from smn_cli.data.labels.eval_split import LabeledSplit, load_labeled_split
from smn_cli.evaluation.compare import ScoringProtocol
from smn_cli.evaluation.controls import ControlledComparison
from smn_cli.features.cache import FeatureCache
from smn_cli.features.embed import Embedding
from smn_cli.features.timing import milliseconds_an_image
from smn_cli.masking.backbone import density
from smn_cli.recipes import RECIPES
from smn_cli.runs.pack import change_of_run
from smn_cli.runs.run_config import versions
from smn_cli.runs.run_folder import RunFolder
from smn_cli.runs.run_result import read_learned
from smn_cli.scoring import evaluate_networks
from smn_cli.training.run_context import preprocessing_of

matplotlib.use("svg")
RESULTS = Path(__file__).parent / "results" / "native.jsonl"
COSTS = RESULTS.parent / "sizes.json"
ARMS = {
    "default": "",
    "last": "--teacher last",
    "both": "--teacher stages --teacher last",
    "full": "--train full",
    "before": "--recipe before",
    "before_unjudged": "--recipe before --keep last",
    "unjudged": "--keep last",
    "two_draws": "--cache-trunk 60MB",
    "four_draws": "--cache-trunk 120MB",
    "stages": "--teacher stages",
    "stages_unjudged": "--teacher stages --keep last",
    "one_epoch": "--teacher stages --keep last --epochs 1",
    "from_0": "--mask-only late:0",
    **{f"late_{share}": f"--teacher stages --keep last --mask-only late:{share}" for share in (0, 0.1, 0.3)},
    **{
        f"from_{first}": f"--mask-only name:blocks.[{first}-6].* --mask-only name:conv_head.*"
        for first in (2, 3, 4, 5, 6)
    },
}
"""What is added to `smn adapt`. `before` is the default recipe as it was: codes of the last layer, at every size.
Below the native size `stages` is the default where the images are large and unfamiliar enough; here it is for all.
The bytes are for 900 images and what Lite0 gives before block 4. `from_N` masks Lite0's block N and later ones,
`late_P` what any backbone's `late:P` does, to its last state."""
PROTOCOL = ScoringProtocol(knn=True, linear=True, ks=(20, 200))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--sets", nargs="+", default=[])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=["default"])
    parser.add_argument("--arch", default=LITE0_ARCH)
    parser.add_argument("--weights", type=Path, help="of the backbone; Lite0's if not given")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--size", type=int)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--precision", help="by default what smn chooses")
    parser.add_argument("--max-train", type=int, default=1000)
    parser.add_argument("--max-test", type=int, default=500)
    parser.add_argument("--max-bank", type=int, help="of the training images, for scoring alone; all if not given")
    parser.add_argument("--folds", type=int, default=1, help="so many runs, each tested on another part of all images")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--cost", nargs="+", type=int, help="measure milliseconds an image at these sizes, in turn")
    parser.add_argument("--picture", action="store_true", help="draw accuracy against work an image, of all sizes")
    options = parser.parse_args()
    if options.table:
        print(table([json.loads(line) for line in options.results.read_text().splitlines()]))
        return
    if options.cost:
        COSTS.write_text(json.dumps(costs(options.cost)) + "\n")
        print(COSTS.read_text())
        return
    if options.picture:
        draw([json.loads(line) for line in RESULTS.read_text().splitlines()])
        return
    if options.data is None or options.work is None:
        parser.error("--data and --work are needed")
    options.weights = options.weights or lite0_weights()
    RECIPES["before"] = replace(RECIPES["default"], native_objective="")
    for seed in options.seeds:
        for name in options.sets:
            for arm, fold in itertools.product(options.arms, range(options.folds)):
                row = measure(name, arm, seed, fold, options)
                with options.results.open("a") as file:
                    file.write(json.dumps(row) + "\n")
                print(json.dumps(row), flush=True)


def measure(name: str, arm: str, seed: int, fold: int, options: argparse.Namespace) -> dict[str, Any]:
    """One run, scored."""
    split = load_labeled_split(options.data / name, max_train=options.max_train, max_test=options.max_test)
    if options.folds > 1:
        split = folded(split, fold, options.folds)
    bank = split
    if options.max_bank:
        bank = load_labeled_split(options.data / name, max_train=options.max_bank, max_test=options.max_test)
    images = unlabeled(split, options.work / f"{name}-images")
    run = options.work / (f"{name}-{arm}-{seed}" + (f"-{fold}" if options.folds > 1 else ""))
    words = f"adapt {images} --arch {options.arch} --weights {options.weights} --seed {seed} --overwrite --out {run}"
    given = ((key, getattr(options, key)) for key in ("size", "steps", "precision"))
    words += "".join(f" --{key} {value}" for key, value in given if value) + f" {ARMS[arm]}"
    started = time.monotonic()
    try:
        smn(words.split())
    except SystemExit as end:
        if end.code:
            sys.exit(f"smn {words} ended with {end.code}")
    seconds = time.monotonic() - started
    folder, backbone = RunFolder.open(run), load_backbone(options.arch, options.weights)
    learned, size = read_learned(folder), folder.read_config()["plan"]["views"]["global_size"]
    return {
        "data": name,
        "arm": arm,
        "seed": seed,
        "images": len(split.train_paths),
        **({"fold": fold, "folds": options.folds} if options.folds > 1 else {}),
        "arch": options.arch,
        "size": size,
        "steps": folder.read_config()["plan"]["num_steps"],
        "kept_step": learned.step,
        "judge_gain": learned.judge_gain,
        "alarms": [alarm.partition(":")[0] for alarm in learned.alarms],
        "density": round(density(learned.masks), 4) if learned.masks else None,
        "seconds": round(seconds),
        "precision": folder.read_config()["plan"]["precision"],
        **score(bank, folder, backbone),
        "versions": versions(),
    }


def folded(split: LabeledSplit, fold: int, folds: int) -> LabeledSplit:
    """All images of a split divided anew, evenly over the classes: one part of so many tests."""
    paths, labels = [*split.train_paths, *split.test_paths], [*split.train_labels, *split.test_labels]
    parts = StratifiedKFold(folds, shuffle=True, random_state=0).split(paths, labels)
    train, test = next(itertools.islice(parts, fold, None))
    return replace(
        split,
        train_paths=[paths[position] for position in train],
        train_labels=[labels[position] for position in train],
        test_paths=[paths[position] for position in test],
        test_labels=[labels[position] for position in test],
    )


def unlabeled(split: LabeledSplit, folder: Path) -> Path:
    """The training images of a split in one folder, as links."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for number, path in enumerate(split.train_paths):
        (folder / f"{number:05d}{path.suffix}").symlink_to(path.absolute())
    return folder


def score(split: LabeledSplit, folder: RunFolder, backbone: Backbone) -> dict[str, Any]:
    """Accuracies of base and adapted, and gains with their intervals, by reading and metric."""
    size = folder.read_config()["preprocessing"]["size"]
    embedding = Embedding(preprocessing_of(backbone, size), cache=FeatureCache())
    found = evaluate_networks(backbone, change_of_run(folder, backbone), split, embedding, PROTOCOL, controls=True)
    assert isinstance(found, ControlledComparison)
    rows = {"raw": found, **found.readouts}
    if found.native is not None:
        rows["native"] = found.native.comparison
    content: dict[str, Any] = {}
    for kind, comparison in rows.items():
        for metric, value in comparison.base.metrics.items():
            row = {"base": round(value, 4)}
            if comparison.adapted is not None:
                gain = comparison.gains[metric]
                row |= {"adapted": round(comparison.adapted.metrics[metric], 4)}
                row |= {"low": round(gain.low, 4), "high": round(gain.high, 4)}
            content[f"{kind} {SHORT[metric]}"] = row
    return {"scores": content}


SHORT = {"knn.top1": "k20", "knn.top1@200": "k200", "linear.top1": "linear"}
COLUMNS = ("raw k20", "raw k200", "centred k20", "centred k200", "whitened k20", "whitened k200", "raw linear")


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: a row for each set, arm and size, means over the seeds; ** where every seed's interval leaves out 0.

    Folds have a row for each seed, with one interval over all images.
    """
    lines = [f"| set | arm | px | seeds | {' | '.join(COLUMNS)} | stages k20 | density | minutes |"]
    lines.append("|" + "---|" * (len(COLUMNS) + 7))
    keys = dict.fromkeys((*kind(row), seed_of_folds(row)) for row in rows)
    for data, arm, size, folds, seed in keys:
        own = [row for row in rows if (*kind(row), seed_of_folds(row)) == (data, arm, size, folds, seed)]
        write = cell if folds == 1 else pooled_cell
        cells = [write([row["scores"][column] for row in own]) for column in COLUMNS]
        stages = mean([row["scores"]["stages k20"]["base"] for row in own])
        kept = [row["density"] for row in own if row["density"] is not None]
        minutes = mean([row["seconds"] for row in own]) / 60
        shown = f"{mean(kept):.3f}" if kept else "-"
        numbers = f"{stages:.3f} | {shown} | {minutes:.1f}"
        runs = f"{seed}, {len(own)} folds" if folds > 1 else str(len(own))
        lines.append(f"| {data} | {arm} | {size} | {runs} | {' | '.join(cells)} | {numbers} |")
    return "\n".join(lines)


def kind(row: dict[str, Any]) -> tuple[str, str, int, int]:
    return row["data"], row["arm"], row["size"], row.get("folds", 1)


def seed_of_folds(row: dict[str, Any]) -> int | None:
    """Folds of one seed are pooled; those of another test the same images once more."""
    return row["seed"] if row.get("folds", 1) > 1 else None


def pooled_cell(scores: list[dict[str, float]]) -> str:
    """base -> adapted (the gain's interval), over folds whose test images are different ones."""
    base, adapted = (mean([score[name] for score in scores]) for name in ("base", "adapted"))
    variance = sum(((score["high"] - score["low"]) / (2 * 1.96)) ** 2 for score in scores) / len(scores) ** 2
    gain, margin = adapted - base, 1.96 * variance**0.5
    return f"{base:.3f} -> {adapted:.3f} ({gain - margin:+.4f} .. {gain + margin:+.4f})"


def cell(scores: list[dict[str, float]]) -> str:
    """base -> adapted (ends of the intervals), bold where all lie above 0, struck through where any lies below."""
    base, adapted = (mean([score[name] for score in scores]) for name in ("base", "adapted"))
    low, high = min(score["low"] for score in scores), max(score["high"] for score in scores)
    text = f"{base:.3f} -> {adapted:.3f} ({low:+.3f} .. {high:+.3f})"
    if all(score["low"] > 0 for score in scores):
        return f"**{text}**"
    return f"~~{text}~~" if any(score["high"] < 0 for score in scores) else text


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def costs(sizes: list[int], rounds: int = 5) -> dict[str, float]:
    """Milliseconds an image by size, medians of rounds in turn."""
    model = load_backbone(LITE0_ARCH, lite0_weights()).model
    found: dict[str, list[float]] = {str(size): [] for size in sizes}
    for _ in range(rounds):
        for size, seconds in found.items():
            seconds.append(milliseconds_an_image(model, int(size), torch.device("cpu")))
    return {size: round(float(numpy.median(values)), 2) for size, values in found.items()}


def draw(rows: list[dict[str, Any]]) -> None:
    """benchmarks/results/sizes.svg: k-NN 20 of base and adapted network against work an image, a panel a set."""
    cost_of = json.loads(COSTS.read_text())
    rows = [row for row in rows if kind(row) == (row["data"], "default", row["size"], 1) and row["seed"] == 0]
    sizes_of = {name: {row["size"] for row in rows if row["data"] == name} for name in {row["data"] for row in rows}}
    rows = [row for row in rows if len(sizes_of[row["data"]]) > 1]
    sets = list(dict.fromkeys(row["data"] for row in rows))
    figure, axes = pyplot.subplots(1, len(sets), figsize=(3.2 * len(sets), 3), sharex=True, layout="constrained")
    for axis, name in zip(numpy.atleast_1d(axes), sets, strict=True):
        own = sorted((row for row in rows if row["data"] == name), key=lambda row: row["size"])
        cost = [cost_of[str(row["size"])] for row in own]
        for key, label, colour in (("adapted", "adapted by smn", "#1f77b4"), ("base", "untouched", "#888888")):
            accuracy = [row["scores"]["raw k20"][key] for row in own]
            axis.plot(cost, accuracy, "o-", color=colour, label=label)
        for row in own:
            axis.annotate(str(row["size"]), (cost_of[str(row["size"])], row["scores"]["raw k20"]["base"]), (3, -12),
                          textcoords="offset points", ha="left", fontsize=9, color="#444444")  # fmt: skip
        axis.axhline(own[-1]["scores"]["raw k20"]["base"], color="#bbbbbb", linewidth=0.8, linestyle="--")
        axis.set(title=name, xlabel="milliseconds an image, and its pixels", xscale="log")
        axis.set_xticks([2, 4, 8], ["2", "4", "8"])
        axis.minorticks_off()
        axis.margins(x=0.16, y=0.14)
    numpy.atleast_1d(axes)[0].set_ylabel("k-NN 20 accuracy")
    numpy.atleast_1d(axes)[0].legend(frameon=False)
    figure.savefig(RESULTS.parent / "sizes.svg")


if __name__ == "__main__":
    main()
