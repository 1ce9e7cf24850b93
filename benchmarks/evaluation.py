"""What an evaluation costs: features and neighbours a second, memory of a large training set, bf16, the cache.

    python benchmarks/evaluation.py --data FOLDER > benchmarks/results/evaluation.md        # about ten minutes

FOLDER holds cifar10/, neu-steel/ and clothing/, each with train/ and test/ by class. What is compared runs in turns,
round by round; medians, and the median of the rounds' ratios to the first line.
"""

import argparse
import os
import platform
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from math import exp
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import sklearn
import timm
import torch
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor, nn

from smn_cli.adapters.fingerprint import fingerprint
from smn_cli.backbones.loading import load_backbone
from smn_cli.backbones.packaged import LITE0_ARCH, lite0_weights
from smn_cli.data.labels.eval_split import load_labeled_split
from smn_cli.data.preprocessing import Preprocessing
from smn_cli.data.views.loader import image_batches
from smn_cli.evaluation.compare import LabeledFeatures, ScoringProtocol, score
from smn_cli.evaluation.features import extract_features, on_device
from smn_cli.evaluation.knn import PAPER_TEMPERATURE, knn_predict
from smn_cli.features.cache import FeatureCache
from smn_cli.features.embed import Embedding, batch_size_for, labeled_features

CPU = torch.device("cpu")
ROUNDS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path)
    parser.add_argument(
        "--memory", nargs=4, metavar=("ROWS", "WIDTH", "TYPE", "TEST"), help="one training set, in here"
    )
    options = parser.parse_args()
    torch.set_num_threads(os.cpu_count() or 1)
    if options.memory:
        rows, width, dtype, num_test = options.memory
        large_set(int(rows), int(width), getattr(torch, dtype), int(num_test))
        return
    print("# Evaluation: features, neighbours, memory\n")
    print(
        f"`python benchmarks/evaluation.py --data FOLDER`, {ROUNDS} rounds in turns, {os.cpu_count()} shared CPU "
        f"cores, seed 0. Python {platform.python_version()}, torch {torch.__version__}, timm {timm.__version__}, "
        f"scikit-learn {sklearn.__version__}. EfficientNet-Lite0, ImageNet weights."
    )
    for size, folder, num_images in ((64, "cifar10", 1024), (224, "clothing", 128)):
        feature_speed(options.data / folder, size, num_images)
    bf16_and_cache(options.data)
    neighbour_speed(options.data / "cifar10")
    memory_of_large_sets()


def lite0() -> nn.Module:
    return load_backbone(LITE0_ARCH, lite0_weights()).model


def preprocessing(size: int) -> Preprocessing:
    backbone = load_backbone(LITE0_ARCH, lite0_weights())
    return Preprocessing(size, backbone.mean, backbone.std, backbone.interpolation)


def in_turns(title: str, unit: str, count: dict[str, int], work: dict[str, Callable[[], object]]) -> dict[str, object]:
    """Time each piece of work in every round, print a table of units a second, and return the last results."""
    seconds: dict[str, list[float]] = {name: [] for name in work}
    results: dict[str, object] = {}
    for name in work:  # once to warm up
        results[name] = work[name]()
    for _ in range(ROUNDS):
        for name in work:
            started = time.perf_counter()
            results[name] = work[name]()
            seconds[name].append((time.perf_counter() - started) / count[name])
    first = next(iter(work))
    print(f"\n## {title}\n\n| | {unit} a second | times the first |\n|---|---:|---:|", flush=True)
    for name, per_one in seconds.items():
        ratio = statistics.median(a / b for a, b in zip(seconds[first], per_one, strict=True))
        print(f"| {name} | {1 / statistics.median(per_one):,.1f} | {ratio:.2f} |", flush=True)
    return results


def feature_speed(folder: Path, size: int, num_images: int) -> None:
    paths = load_labeled_split(folder, max_train=num_images, max_test=1).train_paths[:num_images]
    images = torch.cat(list(image_batches(paths, preprocessing(size))))
    plain, ours = lite0().requires_grad_(True), lite0().to(memory_format=torch.channels_last)

    def plain_loop() -> Tensor:
        return torch.cat([plain(batch).detach() for batch in torch.split(images, 128)])

    def extract(precision: str, batch_size: int) -> Tensor:
        batches = torch.split(images, batch_size)
        return extract_features(on_device(ours, CPU, precision), batches, num_images=len(images))

    work: dict[str, Callable[[], object]] = {
        "plain loop: autograd on, contiguous, 128 a batch": plain_loop,
        "smn, fp32, 128 a batch": lambda: extract("fp32", 128),
        "smn, fp32, 32 a batch": lambda: extract("fp32", 32),
        "smn, bf16, 128 a batch": lambda: extract("bf16", 128),
        "smn, bf16, 32 a batch": lambda: extract("bf16", 32),
    }
    title = f"Features of {len(images):,} decoded images of {folder.name}, {size} px"
    results = in_turns(title, "images", dict.fromkeys(work, len(images)), work)
    _, large, small, _, _ = map(torch.as_tensor, results.values())
    print(
        f"\nsmn takes {batch_size_for(CPU, size)} a batch; fp32 gives equal bits at both: {torch.equal(large, small)}."
    )


def embed(folder: Path, precision: str = "fp32", cache: FeatureCache | None = None, **limits: Any) -> LabeledFeatures:
    model = lite0().to(memory_format=torch.channels_last)
    return labeled_features(
        model,
        load_labeled_split(folder, **limits),
        Embedding(preprocessing(64), precision, cache=cache),
        identity=lambda: {"state": fingerprint(model.state_dict()).digest},
    )


def bf16_and_cache(data: Path) -> None:
    print("\n## bf16 beside fp32, and the cache, 64 px\n")
    print("| images | precision | k-NN 200 | k-NN 20 | linear | least cosine to fp32 | s | s from the cache |")
    print("|---|---|---:|---:|---:|---:|---:|---:|")
    for name in ("neu-steel", "clothing"):
        exact = embed(data / name)
        for precision in ("fp32", "bf16"):
            with TemporaryDirectory() as folder:
                cache = FeatureCache(Path(folder))
                started = time.perf_counter()
                found = embed(data / name, precision, cache)
                fresh_s = time.perf_counter() - started
                started = time.perf_counter()
                again = embed(data / name, precision, cache)
                cached_s = time.perf_counter() - started
            assert cache.num_found == len(found.train) + len(found.test)
            assert torch.equal(again.train, found.train)
            least = float(nn.functional.cosine_similarity(exact.train, found.train).min())
            metrics = score(found, ScoringProtocol(knn=True, linear=True)).metrics
            shown = " | ".join(f"{metrics[key]:.4f}" for key in ("knn.top1", "knn.top1@20", "linear.top1"))
            print(f"| {name} | {precision} | {shown} | {least:.5f} | {fresh_s:.1f} | {cached_s:.2f} |", flush=True)


def neighbour_speed(folder: Path) -> None:
    found = embed(folder, max_train=50_000, max_test=2_000)
    train, test, labels, k = found.train, found.test, found.train_labels, 200
    few = test[:200]

    def weights(distances: np.ndarray) -> np.ndarray:
        return np.exp((1 - distances) / PAPER_TEMPERATURE)

    classifier = KNeighborsClassifier(k, algorithm="brute", metric="cosine", weights=weights)
    classifier.fit(train.numpy(), labels.numpy())
    half, unit_train = train.half(), nn.functional.normalize(train, dim=1)
    work: dict[str, Callable[[], object]] = {
        f"plain loop, a test image at a time ({len(few)} test images)": lambda: one_by_one(unit_train, labels, few, k),
        "scikit-learn KNeighborsClassifier, brute, cosine": lambda: classifier.predict(test.numpy()),
        "smn": lambda: knn_predict(train, labels, test, ks=[k], num_classes=10)[k],
        "smn, training images in float16": lambda: knn_predict(half, labels, test, ks=[k], num_classes=10)[k],
    }
    count = dict.fromkeys(work, len(test)) | {next(iter(work)): len(few)}
    title = (
        f"Neighbours: training images {len(train):,} x {train.shape[1]:,} (CIFAR-10, 64 px), "
        f"{len(test):,} test images, k = {k}"
    )
    slow, theirs, ours, halves = (
        torch.as_tensor(result) for result in in_turns(title, "test images", count, work).values()
    )
    print(
        f"\nPredictions equal to smn's: plain loop {int((slow == ours[: len(few)]).sum())} of {len(few)}, scikit-learn "
        f"{int((theirs == ours).sum()):,} of {len(ours):,}, training images in float16 {int((halves == ours).sum()):,}."
    )


def one_by_one(unit_train: Tensor, labels: Tensor, test: Tensor, k: int) -> list[int]:
    """The rule as one would write it at first, over training rows that are normalised beforehand."""
    predictions = []
    for row in test:
        cosines, nearest = (unit_train @ nn.functional.normalize(row, dim=0)).topk(k)
        votes: dict[int, float] = defaultdict(float)
        for cosine, label in zip(cosines.tolist(), labels[nearest].tolist(), strict=True):
            votes[label] += exp(cosine / PAPER_TEMPERATURE)
        predictions.append(max(votes, key=lambda label: votes[label]))
    return predictions


def memory_of_large_sets() -> None:
    print("\n## A training set of 1,000,000 x 2,048 made features, k = 200 and 20, 1,000 classes\n")
    print("| features | GB | peak above them, GB | test images a second |\n|---|---:|---:|---:|", flush=True)
    for dtype, num_bytes in (("float16", 2), ("float32", 4)):
        needed, available = 1_000_000 * 2048 * num_bytes + 3 * 10**9, available_bytes()
        if available < needed:
            print(f"| {dtype} | not run: {available / 1e9:.1f} of {needed / 1e9:.1f} GB free | | |")
            continue
        here = [sys.executable, __file__, "--memory", "1000000", "2048", dtype, "512"]
        subprocess.run(here, check=True)


def available_bytes() -> int:
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))


def peak_bytes() -> int:
    """Most memory this process ever had; getrusage would count what its parent had before."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def large_set(num_rows: int, width: int, dtype: torch.dtype, num_test: int) -> None:
    """Make training features, predict, and print a line of the table."""
    generator = torch.Generator().manual_seed(0)
    train = torch.empty(num_rows, width, dtype=dtype)
    for rows in torch.split(train, 4096):
        rows.normal_(generator=generator)
    labels = torch.randint(1000, (num_rows,), generator=generator)
    test = torch.randn(num_test, width, generator=generator)
    before = peak_bytes()
    started = time.perf_counter()
    knn_predict(train, labels, test, ks=[200, 20], num_classes=1000)
    elapsed_s = time.perf_counter() - started
    above = peak_bytes() - before
    name = str(dtype).removeprefix("torch.")
    print(
        f"| {name} | {train.nbytes / 1e9:.2f} | {above / 1e9:.2f} | {num_test / elapsed_s:.1f} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
