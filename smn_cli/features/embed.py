"""Features of image files under one network, from the cache where it has them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from smn_cli.backbones import stages
from smn_cli.backbones.loading import feature_width
from smn_cli.data.labels.eval_split import LabeledSplit
from smn_cli.data.preprocessing import Preprocessing
from smn_cli.data.views.crop_cache import CropCache
from smn_cli.data.views.loader import image_batches
from smn_cli.distributed import Team
from smn_cli.errors import BackboneError
from smn_cli.evaluation.compare import LabeledFeatures
from smn_cli.evaluation.features import Network, on_device
from smn_cli.features.cache import FeatureCache
from smn_cli.features.cache_key import feature_key
from smn_cli.features.shares import Shares

BATCH_SIZE, BATCH_SIZE_OF_LARGE_IMAGES = 128, 32
"""Images a batch; the second on a CPU whose caches large images overflow. The bits of features are the same."""
_LARGE_PX = 128


@dataclass(frozen=True)
class Embedding:
    """How images become features.

    Attributes:
        preprocessing: of the images.
        precision: "fp32" or "bf16"; features are float32 either way.
        num_workers: image loading processes.
        cache: where features are looked for and kept; None embeds every time.
        team: the processes that share the images; features come together in the first one.
        crops: of a run, which may have decoded some of the images already; None if nobody has.
    """

    preprocessing: Preprocessing
    precision: str = "fp32"
    num_workers: int = 0
    cache: FeatureCache | None = None
    team: Team = field(default_factory=Team)
    crops: CropCache | None = None

    def batches(self, paths: Sequence[Path], batch_size: int) -> Iterator[Tensor]:
        """Prepared images (B, 3, size, size), in order; see `image_batches`."""
        if self.crops is not None and self.crops.preprocessing == self.preprocessing:
            return self.crops.batches(paths, batch_size=batch_size, num_workers=self.num_workers)
        return image_batches(paths, self.preprocessing, batch_size=batch_size, num_workers=self.num_workers)


def labeled_features(
    model: nn.Module,
    split: LabeledSplit,
    embedding: Embedding,
    *,
    identity: Callable[[], Mapping[str, str]],
    with_stages: bool = False,
    progress: Callable[[int], None] | None = None,
) -> LabeledFeatures:
    """Features of a labeled split under one network.

    Args:
        model: a backbone without classifier, on its device.
        split: training and test images.
        embedding: how.
        identity: what tells the network from every other one, down to the bits of its tensors; asked for the cache.
        with_stages: whether its own stages are wanted, too; they come out of the same forward pass.
        progress: called with the number of images done.

    Raises:
        DataError: an image cannot be read.
    """
    paths = [*split.train_paths, *split.test_paths]
    features = image_features(model, paths, embedding, identity=identity, with_stages=with_stages, progress=progress)
    if not with_stages:
        return _labeled(features, split)
    width = feature_width(model)
    return replace(_labeled(features[:, :width], split), stages=_labeled(features[:, width:], split))


def _labeled(features: Tensor, split: LabeledSplit) -> LabeledFeatures:
    num_train = len(split.train_paths)
    return LabeledFeatures(
        train=features[:num_train],
        train_labels=torch.tensor(split.train_labels),
        test=features[num_train:],
        test_labels=torch.tensor(split.test_labels),
    )


def batch_size_for(device: torch.device, size: int) -> int:
    """Images a batch that suit a device, for images of `size` pixels a side."""
    return BATCH_SIZE_OF_LARGE_IMAGES if device.type == "cpu" and size > _LARGE_PX else BATCH_SIZE


def image_features(
    model: nn.Module,
    paths: Sequence[Path],
    embedding: Embedding,
    *,
    identity: Callable[[], Mapping[str, str]],
    with_stages: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Tensor:
    """(N, F) float32 features of images under one network, in their order, with stages (N, F + D).

    No rows in other processes of a team than the first. See `labeled_features`.
    """
    device = next(model.parameters()).device
    batch_size = batch_size_for(device, embedding.preprocessing.size)
    how = {"preprocessing": embedding.preprocessing.to_json(), "precision": embedding.precision, "batch": batch_size}
    if with_stages:
        how["reads"] = "features and stages"

    cache = embedding.cache if embedding.team.is_first else None
    network = identity() if cache is not None else {}
    model.eval()
    return shared_features(
        on_device(beside_stages(model) if with_stages else model, device, embedding.precision),
        paths,
        replace(embedding, cache=cache),
        batch_size=batch_size,
        key=lambda: feature_key(paths, network=network, how=how, device=device),
        progress=progress,
    )


def shared_features(
    network: Network,
    paths: Sequence[Path],
    embedding: Embedding,
    *,
    batch_size: int,
    key: Callable[[], str | None],
    progress: Callable[[int], None] | None = None,
    room: Callable[[int, int], Tensor] = torch.empty,
) -> Tensor:
    """(N, F) features of images, in their order, from the cache or made by all processes of a team.

    No rows in other processes than the first.

    Args:
        network: from images (B, 3, H, W) that lie anywhere.
        paths: N images, the same in all processes.
        embedding: how; the first process's cache is used.
        batch_size: images a batch.
        key: under which the cache has them; asked for before and after, and None where there can be none.
        progress: called with the number of images done.
        room: from N and F to where rows are put, see `Shares.joined`; what the cache has is float32 in memory.
    """
    team, cache = embedding.team, embedding.cache if embedding.team.is_first else None
    before = key() if cache is not None else None
    found = cache.load(before, len(paths)) if cache is not None and before is not None else None
    if team.from_first(lambda: found is not None):
        if progress is not None:
            progress(len(paths))
        return torch.empty(0, 0) if found is None else found
    shares = Shares(paths, batch_size, team)
    own = embedding.batches(shares.own, batch_size)
    features = shares.joined(map(torch.inference_mode()(network), own), progress, room)
    if cache is not None and before is not None and features.dtype == torch.float32 and key() == before:
        cache.save(before, features)  # no image changed in the meantime
    return features


def beside_stages(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """A function from images (B, 3, H, W) to features and stages side by side, (B, F + D)."""
    both, width = stages.with_stages(model), feature_width(model)

    def run(images: Tensor) -> Tensor:
        features, own_stages = both(images)
        if features.shape[1] != width:  # the two could not be told apart again
            raise BackboneError(f"{type(model).__name__} gives {features.shape[1]} features: expected {width}")
        return torch.cat([features.float(), own_stages], dim=1)

    return run
