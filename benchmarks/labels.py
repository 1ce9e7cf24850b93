"""Accuracy against labels, as in the paper's figure 3: supervised masks, full fine-tuning, linear probes, with and
without the self-supervised mask.

    python benchmarks/labels.py --data FOLDER --run RUN --work FOLDER     # goes on where it stopped

FOLDER holds train/ and test/ by class; RUN is a run of smn adapt without labels over such images. Everything is made
through the command line. Writes benchmarks/results/labels.jsonl, labels.md and labels.svg.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

from smn_cli.runs.run_config import versions

RESULTS = Path(__file__).parent / "results" / "labels.jsonl"
STEPS = {1.0: 240, 0.1: 120, 0.01: 60}
TRAINED = {
    "supervised mask": ("mask", False),
    "supervised mask after the self-supervised": ("mask", True),
    "full fine-tuning": ("full", False),
}
PROBES = {"linear probe of the base": "base", "linear probe of the self-supervised mask": "adapted"}
STYLES = dict(zip((*TRAINED, *PROBES), ("o-", "s-", "^--", "v:", "D-."), strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--images", type=int, default=10_000, help="labeled ones in all, evenly over the classes")
    parser.add_argument("--max-test", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    data = linked(options.data, options.images, options.work / "data")
    config = json.loads((options.run / "config.json").read_text())
    weights = ["--weights", config["weights"]] if config["weights"] else []
    common = {"data": options.data.name, "images": options.images, "seed": options.seed}
    for fraction in STEPS:
        for method, (train, starts) in TRAINED.items():
            key = {**common, "method": method, "fraction": fraction, "steps": STEPS[fraction]}
            if not is_done(key):
                write(key, *trained(options, data, config["arch"], weights, fraction, train, starts))
    probe(options, data, weights, common)
    rows = [row for row in read() if all(row["key"][name] == common[name] for name in common)]
    RESULTS.with_suffix(".md").write_text(table(rows))
    draw(rows, RESULTS.with_suffix(".svg"))
    print(table(rows))


def trained(
    options: argparse.Namespace, data: Path, arch: str, weights: list, fraction: float, train: str, starts: bool
) -> tuple[list[float], float]:
    """Test accuracy of the classifier of one run, and the run's seconds."""
    run = options.work / f"{train}-{starts}-{fraction}-{options.seed}"
    words = ["adapt", data, "--labels", "folders", "--label-fraction", fraction, "--train", train, "--arch", arch]
    words += [*weights, "--out", run, "--overwrite", "--steps", STEPS[fraction], "--keep", "last"]
    words += ["--size", 64, "--seed", options.seed, *(["--start", options.run] if starts else [])]
    started = time.monotonic()
    smn(*words)
    seconds = time.monotonic() - started
    scores = smn("eval", data, "--run", run, *weights, "--max-test", options.max_test, "--knn", "--no-controls")
    return [scores["adapted"]["classifier"]["top1"]], seconds


def probe(options: argparse.Namespace, data: Path, weights: list, common: dict) -> None:
    """Linear probes at the same fractions, five draws each."""
    keys = {(m, f): {**common, "method": m, "fraction": f, "steps": 0} for m in PROBES for f in STEPS}
    if all(is_done(key) for key in keys.values()):
        return
    limits = ["--max-test", options.max_test, "--seed", options.seed]
    adapter = options.work / "self-supervised.safetensors"
    smn("pack", options.run, "--out", adapter, "--overwrite")
    started = time.monotonic()
    fractions = ",".join(map(str, STEPS))
    content = smn("eval", data, "--adapter", adapter, *weights, "--linear", "--label-fraction", fractions, *limits)
    for row in content["low_shot"]:
        for method, which in PROBES.items():
            groups = row["base"] if which == "base" else row["adapters"][0]
            key = keys[method, row["fraction"]]
            if not is_done(key):
                values = [groups["linear"]["top1"]]
                write(key, values, time.monotonic() - started, (groups.get("spread") or {}).get("linear.top1"))


def linked(source: Path, num_images: int, target: Path) -> Path:
    """Class folders of links to the first images of every class; the test images as they are."""
    if not target.exists():
        classes = sorted(path for path in (source / "train").iterdir() if path.is_dir())
        for label in classes:
            folder = target / "train" / label.name
            folder.mkdir(parents=True)
            for path in sorted(label.iterdir())[: num_images // len(classes)]:
                (folder / path.name).symlink_to(path.resolve())
        (target / "test").symlink_to((source / "test").resolve())
    return target


def smn(*words: object) -> dict:
    """Run a command and read its JSON."""
    command = [sys.executable, "-m", "smn_cli", *map(str, words), "--json", "-"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"exit {done.returncode}: {' '.join(command)}")
    return json.loads(done.stdout)


def write(key: dict, values: list[float], seconds: float, spread: float | None = None) -> None:
    row = {"key": key, "top1": sum(values) / len(values), "spread": spread, "seconds": seconds, "versions": versions()}
    with RESULTS.open("a") as file:
        file.write(json.dumps(row) + "\n")


def read() -> list[dict]:
    return [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []


def is_done(key: dict) -> bool:
    return any(row["key"] == key for row in read())


def table(rows: list[dict]) -> str:
    """Markdown: a row a method, a column a fraction."""
    first = rows[0]["key"]
    lines = [f"{first['data']}, {first['images']} images, seed {first['seed']}; test accuracy of the classifier", ""]
    lines += ["| | " + " | ".join(f"{fraction:.0%} of the labels" for fraction in STEPS) + " |"]
    lines += ["|---|" + "---|" * len(STEPS)]
    for method in STYLES:
        found = {row["key"]["fraction"]: row["top1"] for row in rows if row["key"]["method"] == method}
        cells = [f"{found[fraction]:.4f}" if fraction in found else "-" for fraction in STEPS]
        lines.append(f"| {method} | {' | '.join(cells)} |")
    steps = ", ".join(f"{steps} at {fraction:.0%}" for fraction, steps in STEPS.items())
    return "\n".join([*lines, "", f"Steps of 64: {steps}; the last state is taken. Probes: mean of five draws.", ""])


def draw(rows: list[dict], target: Path) -> None:
    """The same as a picture."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
    for method, style in STYLES.items():
        points = sorted((row["key"]["fraction"], row["top1"]) for row in rows if row["key"]["method"] == method)
        axes.plot([100 * x for x, _ in points], [y for _, y in points], style, label=method)
    axes.set(xscale="log", xlabel="labels used, %", ylabel="top-1 accuracy", title=f"{rows[0]['key']['data']}")
    axes.set_xticks([100 * fraction for fraction in STEPS], [f"{fraction:.0%}" for fraction in STEPS])
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(target)


if __name__ == "__main__":
    main()
