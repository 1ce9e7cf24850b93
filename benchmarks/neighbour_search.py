"""Recall and seconds of the approximate neighbours, beside the exact ones.

    python benchmarks/neighbour_search.py --images FOLDER [--count 50000 --count 200000]

Rows are EfficientNet-Lite0's stages on the images at 64 px, read out as a run does; where more rows are asked for than
there are images, the others lie between an image and one of its 50 nearest, with noise of a quarter of the spread. The
exact search is timed on 1,000 rows, from which the recall is, too.
"""

import argparse
import time
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from smn_cli.backbones.loading import load_backbone
from smn_cli.backbones.packaged import LITE0_ARCH, lite0_weights
from smn_cli.data.images.find import find_images
from smn_cli.evaluation.readouts import fit_stage_readout
from smn_cli.features.embed import Embedding, image_features
from smn_cli.objectives import neighbour_search
from smn_cli.objectives.neighbourhood import NUM_NEIGHBOURS
from smn_cli.training.run_context import preprocessing_of

SIZE, NUM_TRIED = 64, 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--count", type=int, action="append")
    parser.add_argument("--most-images", type=int, default=12_500)
    options = parser.parse_args()
    paths = find_images([options.images])
    real = space_of(paths[:: max(1, len(paths) // options.most_images)][: options.most_images])
    print(f"{len(real):,} images, {torch.get_num_threads()} threads\n")
    print("| rows | exact, all | approximate, all | recall of 100 | of the nearest 10 |\n|---:|---:|---:|---:|---:|")
    neighbour_search.MAX_EXACT = 0  # so that any number is searched approximately
    for count in options.count or [50_000, 200_000]:
        print(measured(grown(real, count).half()), flush=True)


def space_of(paths: list[Path]) -> Tensor:
    """(N, 256) of unit length."""
    backbone = load_backbone(LITE0_ARCH, lite0_weights())
    model = backbone.model.eval().to(memory_format=torch.channels_last)
    embedding = Embedding(preprocessing_of(backbone, SIZE))
    features = image_features(model, paths, embedding, identity=dict, with_stages=True)
    stages = features[:, backbone.num_features :]
    return fit_stage_readout(stages)(stages)


def grown(real: Tensor, count: int) -> Tensor:
    """So many rows, the real ones first."""
    generator = torch.Generator().manual_seed(0)
    near = torch.cat([(rows @ real.T).topk(51).indices[:, 1:] for rows in torch.split(real, 1024)])
    parts = [real]
    while sum(map(len, parts)) < count:
        other = real[near.gather(1, torch.randint(0, 50, (len(real), 1), generator=generator))[:, 0]]
        share = torch.rand(len(real), 1, generator=generator) * 0.6 + 0.2
        noise = torch.randn(real.shape, generator=generator) * real.std(dim=0) * 0.25
        parts.append(functional.normalize(share * real + (1 - share) * other + noise, dim=1))
    return torch.cat(parts)[:count].contiguous()


def measured(space: Tensor) -> str:
    """One row of the table."""
    tried = torch.randperm(len(space), generator=torch.Generator().manual_seed(1))[:NUM_TRIED]
    started = time.perf_counter()
    exact, _ = neighbour_search._exact(space, tried, NUM_NEIGHBOURS)
    exact_s = (time.perf_counter() - started) * len(space) / len(tried)
    started = time.perf_counter()
    places, _ = neighbour_search.nearest_others(space, NUM_NEIGHBOURS)
    approximate_s = time.perf_counter() - started
    recalls = []
    for num in (NUM_NEIGHBOURS, 10):
        pairs = zip(places[tried, :num].tolist(), exact[:, :num].tolist(), strict=True)
        recalls.append(sum(len(set(found) & set(wanted)) for found, wanted in pairs) / num / len(tried))
    return f"| {len(space):,} | {exact_s:.0f} s | {approximate_s:.0f} s | {recalls[0]:.3f} | {recalls[1]:.3f} |"


if __name__ == "__main__":
    main()
