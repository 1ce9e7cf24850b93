"""What a cascade adds to a single mask, and what of that is whitening: one run, real images, real weights.

    python benchmarks/cascade.py --data FOLDER --work FOLDER          # goes on where it stopped
    python benchmarks/cascade.py --data FOLDER --work FOLDER --run RUN  # over a run made before

FOLDER holds train/ and test/ by class (CIFAR-10 in docs/benchmarks.md). Everything is made through the command line, as
a user would. Writes benchmarks/results/cascade.jsonl, a line a seed, and cascade.md.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

from smn_cli.backbones.packaged import LITE0_ARCH, lite0_weights
from smn_cli.runs.run_config import versions

RESULTS = Path(__file__).parent / "results" / "cascade.jsonl"
METRICS = ("knn.top1", "knn.top1@20", "linear.top1")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--run", type=Path, help="of the dispatcher, over any images; made here if not given")
    parser.add_argument("--images", type=int, default=10_000, help="unlabeled ones, evenly over the classes")
    parser.add_argument("--steps", type=int, default=350, help="of the dispatcher")
    parser.add_argument("--expert-steps", type=int, default=120)
    parser.add_argument("--experts", type=int, default=5)
    parser.add_argument("--lr-scores", type=float, help="of experts; smn's own choice if not given")
    parser.add_argument("--keep", default="best", help="of experts: best by the judge, or last whatever it says")
    parser.add_argument(
        "--combine", default="whitened", help="of the cascade file; eval whitens by the paper's PCA besides"
    )
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--max-train", type=int, default=5000)
    parser.add_argument("--max-test", type=int, default=2000)
    options = parser.parse_args()
    measure(options)
    rows = read_results()
    RESULTS.with_suffix(".md").write_text(table(rows))
    print(table(rows))


def measure(options: argparse.Namespace) -> None:
    """Dispatcher, cascade, and the scores of both, each made unless it is there."""
    settings = (
        "images",
        "steps",
        "expert_steps",
        "experts",
        "size",
        "seed",
        "max_train",
        "max_test",
        "keep",
        "combine",
        "lr_scores",
    )
    key = {"data": options.data.name, **{name: getattr(options, name) for name in settings}}
    if options.run is not None:
        key["run"] = options.run.name
    if any(row["key"] == key for row in read_results()):
        return
    options.work.mkdir(parents=True, exist_ok=True)
    images = limited_list(options.data / "train", options.images, options.work)
    seconds: dict[str, float] = {}
    run = options.run or made_run(options, images, seconds)
    folder = options.work / f"cascade-{options.seed}-{options.keep}-{options.lr_scores}-{options.combine}"
    words = ["cascade", "--out", folder]
    if (folder / "config.json").exists():
        words += ["--resume"]
    else:
        words += [images, "--run", run, "--experts", options.experts, "--steps", options.expert_steps]
        words += ["--seed", options.seed, "--keep", options.keep, "--combine", options.combine]
        words += [] if options.lr_scores is None else ["--lr-scores", options.lr_scores]
    cascade = timed(seconds, "cascade", *words)
    weights = json.loads((folder / "config.json").read_text())["weights"]
    limits = ["--weights", weights] if weights else []
    limits += ["--max-train", options.max_train, "--max-test", options.max_test]
    scores = timed(seconds, "eval", "eval", options.data, "--adapter", cascade["file"], "--knn", "--linear", *limits)
    row = {"key": key, "cascade": cascade, "scores": scores, "seconds": seconds, "versions": versions()}
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.open("a") as file:
        file.write(json.dumps(row) + "\n")


def made_run(options: argparse.Namespace, images: Path, seconds: dict[str, float]) -> Path:
    """The dispatcher's run, finished."""
    run = options.work / f"dispatcher-{options.seed}"
    words = ["adapt", "--out", run]
    if (run / "config.json").exists():
        words += ["--resume"]
    else:
        words += [images, "--arch", LITE0_ARCH, "--weights", lite0_weights(), "--steps", options.steps]
        words += ["--seed", options.seed, "--size", options.size]
    timed(seconds, "dispatcher", *words)
    return run


def limited_list(folder: Path, num_images: int, work: Path) -> Path:
    """A list of at most so many images, the first of every class in the order of their names."""
    classes = sorted(path for path in folder.iterdir() if path.is_dir())
    share = num_images // len(classes)
    lines = [str(path.resolve()) for label in classes for path in sorted(label.iterdir())[:share]]
    target = work / "images.txt"
    target.write_text("\n".join(lines) + "\n")
    return target


def timed(seconds: dict[str, float], what: str, *words: object) -> dict:
    """Run a command, read its JSON, note its seconds (of this call alone, where it went on)."""
    command = [sys.executable, "-m", "smn_cli", *map(str, words), "--json", "-"]
    started = time.monotonic()
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"exit {done.returncode}: {' '.join(command)}")
    seconds[what] = round(time.monotonic() - started, 1)
    return json.loads(done.stdout)


def read_results() -> list[dict]:
    return [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []


def table(rows: list[dict]) -> str:
    """Scores by way, then bytes, of every run."""
    lines = []
    for row in rows:
        key, cascade = row["key"], row["cascade"]
        sizes = [expert["num_images"] for expert in cascade["experts"]]
        kept = [f"{expert['kept_step']}/{expert['num_steps']}" for expert in cascade["experts"]]
        lines += [
            f"## {key['data']}, {key['images']} images, seed {key['seed']}, {key['size']} px, --keep {key['keep']}"
            + ("" if key["lr_scores"] is None else f", --lr-scores {key['lr_scores']}"),
            "",
            f"Clusters of {', '.join(map(str, sizes))} images; experts kept step {', '.join(kept)}. "
            f"Seconds: {', '.join(f'{what} {value:.0f}' for what, value in row['seconds'].items())}. "
            f"{', '.join(f'{name} {value}' for name, value in row['versions'].items())}.",
            "",
            "| features | width | fitted on | k-NN 200 | k-NN 20 | linear |",
            "|---|---|---|---|---|---|",
            score_line("untouched base", row["scores"]["base"], {}),
        ]
        lines += [score_line(name.replace("_", " "), way, way) for name, way in row["scores"]["cascade"].items()]
        lines += ["", "| part | bytes | over the dispatcher's file |", "|---|---|---|", *byte_lines(cascade), ""]
    return "\n".join(lines)


def score_line(name: str, groups: dict, notes: dict) -> str:
    values = [f"{groups[group][metric]:.4f}" for group, metric in (name.split(".") for name in METRICS)]
    return f"| {name} | {notes.get('dim', '')} | {notes.get('fitted_on', 'nothing')} | {' | '.join(values)} |"


def byte_lines(cascade: dict) -> list[str]:
    own = cascade["dispatcher_file_bytes"]
    whole = cascade["bytes"]["file"] - cascade["bytes"]["combination"]
    parts = {
        **{f"cascade file, {name}": count for name, count in cascade["bytes"].items() if name != "file"},
        "cascade file, whole": cascade["bytes"]["file"],
        "the dispatcher's own file": own,
        f"{1 + len(cascade['experts'])} separate files": cascade["separate_files_bytes"],
        **{f"cascade file, --combine {k}": whole + count for k, count in cascade["combination_bytes"].items()},
    }
    return [f"| {name} | {count:,} | {count / own:.2f}x |" for name, count in parts.items()]


if __name__ == "__main__":
    main()
