"""A dial on the cuts: what is left of a run's gain if only its surest cuts are made.

    python benchmarks/dial.py --data FOLDER --runs FOLDER --sets tomato flowers17 --seeds 0 1 2 --keep 1 .75 .5 .25

`--runs` holds run folders of benchmarks/native.py, NAME-default-SEED, each at its last step. Of all weights that such a
run cuts, the share with the lowest scores is cut, over all tensors. Prints k-NN accuracy, as it is and partly whitened,
with gains over the base and their paired 95 % intervals, as a Markdown table.
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor

from smn_cli.adapters.swap import TunedWeights
from smn_cli.backbones.loading import Backbone, load_backbone
from smn_cli.backbones.packaged import LITE0_ARCH, lite0_weights
from smn_cli.data.labels.eval_split import load_labeled_split
from smn_cli.evaluation.compare import Comparison, ScoringProtocol
from smn_cli.evaluation.controls import ControlledComparison
from smn_cli.features.cache import FeatureCache
from smn_cli.features.embed import Embedding
from smn_cli.runs.run_folder import RunFolder
from smn_cli.scoring import evaluate_networks
from smn_cli.training.run_context import preprocessing_of


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", required=True)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--keep", nargs="+", type=float, default=[1, 0.75, 0.5, 0.25])
    options = parser.parse_args()
    print("| set | seed | cuts made | density | k20 | k20, partly whitened |\n|---|---|---|---|---|---|")
    for name in options.sets:
        split = load_labeled_split(options.data / name, max_train=1000, max_test=500)
        for seed in options.seeds:
            folder = RunFolder.open(options.runs / f"{name}-default-{seed}")
            size = folder.read_config()["preprocessing"]["size"]
            for share in options.keep:
                backbone = load_backbone(LITE0_ARCH, lite0_weights())
                change, density = surest_cuts(folder, backbone, share)
                embedding = Embedding(preprocessing_of(backbone, size), cache=FeatureCache())
                protocol = ScoringProtocol(knn=True, ks=(20, 200))
                found = evaluate_networks(backbone, change, split, embedding, protocol, controls=True)
                assert isinstance(found, ControlledComparison)
                cells = f"{cell(found)} | {cell(found.readouts['whitened'])}"
                print(f"| {name} | {seed} | {share:.0%} | {density:.4f} | {cells} |", flush=True)


def surest_cuts(folder: RunFolder, backbone: Backbone, share: float) -> tuple[TunedWeights, float]:
    """The base without the weights whose scores lie lowest, and the share of the masked ones that are kept."""
    state, config = folder.load_state(), folder.read_config()
    scores: dict[str, Tensor] = state["trainer"]["trained"]
    threshold = config["plan"]["threshold"]
    below = torch.cat([each[each < threshold] for each in scores.values()])
    limit = below.sort().values[max(0, round(share * len(below)) - 1)]
    weights = {name: backbone.model.get_parameter(name).detach() * (each > limit) for name, each in scores.items()}
    num_kept = sum(int((each > limit).sum()) for each in scores.values())
    return TunedWeights(weights, None), num_kept / sum(each.numel() for each in scores.values())


def cell(comparison: Comparison) -> str:
    """base -> adapted (the gain's interval)."""
    assert comparison.adapted is not None
    base, adapted = (each.metrics["knn.top1"] for each in (comparison.base, comparison.adapted))
    gain = comparison.gains["knn.top1"]
    return f"{base:.3f} -> {adapted:.3f} ({gain.low:+.3f} .. {gain.high:+.3f})"


if __name__ == "__main__":
    main()
