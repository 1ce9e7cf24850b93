"""What adaptation does to k-NN and linear accuracy: smn's default against its baselines, several seeds, real images.

    python benchmarks/quality.py run --data FOLDER --work FOLDER      # hours; goes on where it stopped
    python benchmarks/quality.py table                                # the Markdown of docs/benchmarks.md

FOLDER holds cifar10/, neu-steel/ and clothing/, each with train/ and test/ by class. Every run is made through the
command line, as a user would, and its result is one line of benchmarks/results/quality.jsonl.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

from smn_cli.backbones.packaged import LITE0_ARCH, lite0_weights
from smn_cli.runs.run_config import versions

RESULTS = Path(__file__).parent / "results" / "quality.jsonl"
METHODS = {
    "default": [],
    "norm": ["--train", "norm", "--keep", "last"],
    "full": ["--train", "full"],
    "swav": ["--recipe", "swav"],
    "paper": ["--recipe", "paper"],
}
TITLES = {
    "default": "smn default",
    "codes": "smn default as it was, codes",
    "norm": "statistics re-estimated",
    "full": "full fine-tuning, same loss",
    "swav": "swapped prediction (`--recipe swav`)",
    "paper": "paper recipe, same steps",
}
MAX_TRAIN, MAX_TEST = 5000, 2000
METRICS = ("knn.top1", "knn.top1@20", "linear.top1")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run")
    run.add_argument("--data", type=Path, required=True)
    run.add_argument("--work", type=Path, required=True)
    run.add_argument("--sets", nargs="+", default=["neu-steel", "clothing", "cifar10"])
    run.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    run.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    run.add_argument("--size", type=int, default=64)
    commands.add_parser("table")
    options = parser.parse_args()
    if options.command == "table":
        print(table(read_results()))
        return
    for seed in options.seeds:
        for method in options.methods:
            for name in options.sets:
                measure(options.data / name, options.work, method, seed, options.size)


def measure(data: Path, work: Path, method: str, seed: int, size: int) -> None:
    """One run and its evaluation, unless it has been made before."""
    key = {"data": data.name, "method": method, "seed": seed, "size": size}
    if any(all(row[name] == value for name, value in key.items()) for row in read_results()):
        return
    if not data.is_dir():
        print(f"skipped {data.name}: {data} is not there")
        return
    work.mkdir(parents=True, exist_ok=True)
    images = limited_list(data / "train", work)
    folder = work / f"{data.name}-{method}-{seed}-{size}"
    started = time.monotonic()
    adapt = ["adapt", images, "--arch", LITE0_ARCH, "--weights", lite0_weights(), "--out", folder, "--overwrite"]
    steps = ["--steps", default_steps(images)]
    adapted = smn(*adapt, *steps, "--seed", seed, "--size", size, *METHODS[method])
    seconds = time.monotonic() - started
    limits = ["--max-train", MAX_TRAIN, "--max-test", MAX_TEST]
    scores = smn("eval", data, "--run", folder, "--knn", "--linear", *limits)
    packed = {}
    if method != "full":
        packed = smn("pack", folder, "--out", work / "adapter.safetensors", "--overwrite")
    row = {
        **key,
        "steps": adapted["steps"],
        "kept_step": adapted["kept_step"],
        "identity": adapted["identity"],
        "alarms": adapted["alarms"],
        "seconds": round(seconds, 1),
        "base": flat(scores["base"]),
        "adapted": flat(scores["adapted"]),
        "gain": scores["gain"],
        "verdict": scores["verdict"],
        "density": packed.get("density"),
        "file_bytes": packed.get("file_bytes"),
        "versions": versions(),
    }
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.open("a") as file:
        file.write(json.dumps(row) + "\n")
    print(f"{data.name} {method} seed {seed}: {row['base']} -> {row['adapted']} in {seconds:.0f} s", flush=True)


def limited_list(folder: Path, work: Path) -> Path:
    """A list of at most MAX_TRAIN images, the first of every class in the order of their names."""
    classes = sorted(path for path in folder.iterdir() if path.is_dir())
    share = MAX_TRAIN // len(classes)
    lines = [str(path.resolve()) for label in classes for path in sorted(label.iterdir())[:share]]
    target = work / f"{folder.parent.name}.txt"
    target.write_text("\n".join(lines) + "\n")
    return target


def default_steps(images: Path) -> int:
    """Steps of the default recipe, so that every method takes as many."""
    from smn_cli.config.options import AdaptOptions
    from smn_cli.training.planning import make_plan

    return make_plan(AdaptOptions(), len(images.read_text().splitlines())).num_steps


def smn(*words: object) -> dict:
    """Run a command and read its JSON."""
    command = [sys.executable, "-m", "smn_cli", *map(str, words), "--json", "-"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
    return json.loads(done.stdout)


def flat(groups: dict) -> dict:
    """Scores by metric name."""
    return {f"{group}.{name}": value for group, values in groups.items() for name, value in values.items()
            if name.startswith("top1")}  # fmt: skip


def read_results() -> list[dict]:
    return [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []


def table(rows: list[dict]) -> str:
    """Mean over seeds, with the spread (largest less smallest) where there are several."""
    lines = [
        "| images | method | seeds | k-NN 200 | k-NN 20 | linear | density | file bytes | seconds |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for data, size in dict.fromkeys((row["data"], row["size"]) for row in rows):
        of_data = [row for row in rows if (row["data"], row["size"]) == (data, size)]
        images = f"{data}, {size} px"
        base = of_data[0]["base"]
        cells = " | ".join(f"{base[name]:.3f}" for name in METRICS)
        lines.append(f"| {images} | untouched base | - | {cells} | 1 | - | - |")
        for method in TITLES:
            runs = [row for row in of_data if row["method"] == method]
            if runs:
                lines.append(f"| {images} | {TITLES[method]} | {len(runs)} | {_cells(runs)} |")
    return "\n".join(lines)


def _cells(runs: list[dict]) -> str:
    cells = []
    for name in METRICS:
        values = [row["adapted"][name] for row in runs]
        spread = f" ± {(max(values) - min(values)) / 2:.3f}" if len(values) > 1 else ""
        cells.append(f"{statistics.mean(values):.3f}{spread}")
    for name, form in (("density", "{:.4f}"), ("file_bytes", "{:,.0f}"), ("seconds", "{:.0f}")):
        values = [row[name] for row in runs if row[name] is not None]
        cells.append(form.format(statistics.mean(values)) if values else "-")
    return " | ".join(cells)


if __name__ == "__main__":
    main()
