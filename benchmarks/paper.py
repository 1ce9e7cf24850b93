"""The comparisons of Self-Masking Networks (arXiv 2409.07577), each run on images at hand with smn's own recipe.

    python benchmarks/paper.py --data FOLDER --work FOLDER --table E F     # goes on where it stopped
    python benchmarks/paper.py --data FOLDER --work FOLDER --table all

FOLDER holds train/ and test/ by class. EfficientNet-Lite0, the same steps, seed and size for every row, and the last
state, unjudged, so that a row is what its settings make. One line a run in benchmarks/results/paper.jsonl; tables E and
F also draw topk.svg and selective.svg beside it. The paper's rows are of ResNet-50 at 224 px after 150 epochs and of
other images: its column says what the comparison is about, not what to expect here.
"""

import argparse
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

import matplotlib
from matplotlib import pyplot
from quality import MAX_TEST, MAX_TRAIN, METRICS, flat, limited_list, smn

import smn_cli
from smn_cli.backbones.packaged import LITE0_ARCH, lite0_weights
from smn_cli.runs.run_config import versions

matplotlib.use("svg")
RESULTS = Path(__file__).parent / "results" / "paper.jsonl"


@dataclass(frozen=True)
class Variant:
    """A row: what it is, the words for `smn adapt`, and what is known of the paper's row.

    `{found}` in the words stands for the density that the threshold found.
    """

    title: str
    words: str = ""
    paper: str = "-"


THRESHOLD = Variant("masks by threshold (smn default)")
TABLES = {
    "2": [
        Variant("mask", "", "k-NN 200: .549 (UCF101), .674 (DTD)"),
        Variant("full fine-tuning, same loss", "--train full"),
        Variant("topk, half kept", "--mask-kind topk --density 0.5"),
    ],
    "B": [
        Variant("mask over everything", "--mask-only name:*"),
        Variant("all but normalisation", "--mask-only name:* --mask-only all-but:*bn*"),
        Variant("all but biases", "--mask-only name:* --mask-only all-but:*.bias"),
        Variant("convolutions but depthwise ones and the stem (smn default)"),
        Variant("normalisation alone", "--mask-only name:*bn*"),
    ],
    "E": [
        THRESHOLD,
        Variant("threshold, rate .1", "--lr-scores 0.1"),
        Variant("topk at the threshold's density", "--mask-kind topk --density {found}"),
        Variant("progressive to the same", "--mask-kind topk --density {found} --density-start 1"),
        Variant("topk from random scores", "--mask-kind topk --density {found} --score-init kaiming"),
        Variant("topk, half kept", "--mask-kind topk --density 0.5"),
        Variant("progressive to half", "--mask-kind topk --density 0.5 --density-start 1"),
    ],
    "F": [
        THRESHOLD,
        Variant("first 2 blocks", "--mask-only blocks:2", "ResNet-50, layer1: 0.9 % of the weights"),
        Variant("first 4 blocks", "--mask-only blocks:4", "ResNet-50, layer1 and 2: 6.1 % of the weights"),
        Variant("first 6 blocks", "--mask-only blocks:6"),
        *(Variant(f"{draw} {share}", f"--mask-only {draw}:{share}")
          for draw in ("random", "largest") for share in (0.02, 0.1, 0.4)),
        # by default large weights start with large scores, which hardly fall in a short run; the paper's start at 1,
        # and at this rate they can fall below 0 in 50 steps
        *(Variant(f"from 1, {draw} {share}", f"--score-init constant --lr-scores 0.1 --mask-only {draw}:{share}")
          for draw in ("random", "largest") for share in (0.02, 0.1, 0.4)),
    ],
    "prototypes": [THRESHOLD, *(Variant(f"{num} prototypes", f"--prototypes {num}") for num in (10, 30, 300, 1000))],
}  # fmt: skip
TITLES = dict(zip(METRICS, ("k-NN 200", "k-NN 20", "linear"), strict=True))
CURVES = {
    "first blocks": "first",
    "random part": "random",
    "largest weights": "largest",
    "random part, all scores from 1": "from 1, random",
    "largest weights, all scores from 1": "from 1, largest",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--table", nargs="+", default=["all"], choices=[*TABLES, "all"])
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("SMN_CACHE_HOME", str(options.work / "cache"))  # the base's features are embedded once
    for name in TABLES if "all" in options.table else options.table:
        rows = [measure(options, variant) for variant in TABLES[name]]
        print(table(name, rows, options), flush=True)
        if name == "E":
            draw_densities(rows, options)
        if name == "F":
            draw_selective(rows, options)


def measure(options: argparse.Namespace, variant: Variant) -> dict:
    """The row of a variant; its run and evaluation are made unless they have been before."""
    words = variant.words
    if "{found}" in words:
        words = words.format(found=round(measure(options, THRESHOLD)["density"], 3))
    key = {"data": options.data.name, "words": words, "steps": options.steps, "size": options.size,
           "seed": options.seed}  # fmt: skip
    shown = {"title": variant.title, "paper": variant.paper}
    for line in RESULTS.read_text().splitlines() if RESULTS.exists() else []:
        row = json.loads(line)
        if all(row[name] == value for name, value in key.items()):
            return row | shown
    row = key | run(options, words) | {"versions": versions()}
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.open("a") as file:
        file.write(json.dumps(row) + "\n")
    print(f"{variant.title}: {row['base']} -> {row['adapted']} in {row['seconds']:.0f} s", flush=True)
    return row | shown


def run(options: argparse.Namespace, words: str) -> dict:
    """What a run of these words makes, scored and packed."""
    images, folder, adapter = limited_list(options.data / "train", options.work), options.work / "run", None
    started = time.monotonic()
    base = ["--arch", LITE0_ARCH, "--weights", lite0_weights(), "--seed", options.seed, "--size", options.size]
    budget = ["--steps", options.steps, "--keep", "last", "--out", folder, "--overwrite"]
    adapted = smn("adapt", images, *base, *budget, *words.split())
    seconds = time.monotonic() - started
    scores = smn(
        "eval", options.data, "--run", folder, "--knn", "--linear", "--max-train", MAX_TRAIN, "--max-test", MAX_TEST
    )
    if "--train full" not in words:
        smn("pack", folder, "--out", options.work / "adapter.safetensors", "--overwrite")
        adapter = smn_cli.load_adapter(options.work / "adapter.safetensors")
    return {
        "base": flat(scores["base"]),
        "adapted": flat(scores["adapted"]),
        "gain": scores["gain"],
        "density": adapted["density"],
        "open": None if adapter is None else round(adapter.header.num_weights * _share(words)),
        "mask_bytes": None if adapter is None else adapter.payload_bytes,
        "file_bytes": None if adapter is None else len(adapter.to_bytes()),
        "seconds": round(seconds, 1),
    }


def _share(words: str) -> float:
    """The part of every tensor that may be cut."""
    last = words.rpartition(" ")[2]
    return float(last.partition(":")[2]) if last.startswith(("random:", "largest:", "smallest:")) else 1.0


def table(name: str, rows: list[dict], options: argparse.Namespace) -> str:
    """Markdown, the untouched base first."""
    base = " | ".join(f"{rows[0]['base'][metric]:.3f}" for metric in METRICS)
    lines = [
        f"\n`--data {options.data.name} --table {name} --steps {options.steps} --size {options.size} "
        f"--seed {options.seed}`, {versions()}\n",
        "| | may be cut | density | k-NN 200 | k-NN 20 | linear | mask bytes | seconds | the paper |",
        "|---|---|---|---|---|---|---|---|---|",
        f"| untouched base | - | 1 | {base} | - | - | - |",
    ]
    for row in rows:
        scores = " | ".join(f"{row['adapted'][metric]:.3f}" for metric in METRICS)
        counts = ["-" if row[part] is None else f"{row[part]:,}" for part in ("open", "mask_bytes")]
        density = "-" if row["open"] is None else f"{row['density']:.4f}"
        lines.append(
            f"| {row['title']} | {counts[0]} | {density} | {scores} | {counts[1]} | {row['seconds']:.0f} "
            f"| {row['paper']} |"
        )
    return "\n".join(lines)


def draw_densities(rows: list[dict], options: argparse.Namespace) -> None:
    """Accuracy against density: the two rules, fixed and falling."""
    kinds = {"threshold": "o", "topk": "s", "progressive": "^", "topk, random scores": "x"}
    figure, axes = pyplot.subplots(1, len(METRICS), figsize=(10, 3.2), layout="constrained")
    for axis, metric in zip(axes, METRICS, strict=True):
        for kind, marker in kinds.items():
            of_kind = [row for row in rows if _kind(row["words"]) == kind]
            points = sorted((row["density"], row["adapted"][metric]) for row in of_kind)
            if points:
                axis.plot(*zip(*points, strict=True), marker, linestyle=":", label=kind)
        axis.axhline(rows[0]["base"][metric], color="grey", linewidth=1, label="untouched base")
        axis.set(xlabel="density", title=TITLES[metric])
    axes[0].legend(fontsize=7)
    figure.suptitle(f"{options.data.name}, {options.size} px, {options.steps} steps, seed {options.seed}")
    figure.savefig(RESULTS.parent / "topk.svg")


def _kind(words: str) -> str:
    if "topk" not in words:
        return "threshold"
    if "kaiming" in words:
        return "topk, random scores"
    return "progressive" if "--density-start" in words else "topk"


def draw_selective(rows: list[dict], options: argparse.Namespace) -> None:
    """Accuracy against the part of the maskable weights that may be cut."""
    whole = rows[0]
    figure, axes = pyplot.subplots(1, len(METRICS), figsize=(10, 3.7), layout="constrained")
    for axis, metric in zip(axes, METRICS, strict=True):
        for (label, start), style in zip(CURVES.items(), ("s-", "o-", "^-", "o:", "^:"), strict=True):
            own = [row for row in rows if row["title"].startswith(start)]
            if not own:
                continue
            curve = own if start.startswith("from 1") else [*own, whole]
            shares = [100 * row["open"] / whole["open"] for row in curve]
            axis.semilogx(shares, [row["adapted"][metric] for row in curve], style, label=label)
        axis.axhline(whole["base"][metric], color="grey", linewidth=1, label="untouched base")
        axis.set(xlabel="weights that may be cut, %", title=TITLES[metric])
    figure.legend(*axes[0].get_legend_handles_labels(), fontsize=8, loc="outside lower center", ncols=3)
    figure.suptitle(f"{options.data.name}, {options.size} px, {options.steps} steps, seed {options.seed}")
    figure.savefig(RESULTS.parent / "selective.svg")


if __name__ == "__main__":
    main()
