"""The readout of a run: fitted to the images that it trained on, under the network that it kept."""

from collections.abc import Callable
from pathlib import Path

import torch

from smn_cli.adapters.adapter import Adapter, adapter_from_bytes
from smn_cli.backbones.loading import Backbone
from smn_cli.data.images.archives import is_archive_member
from smn_cli.errors import DataError, UsageError
from smn_cli.evaluation.readouts import MAX_FITTED
from smn_cli.features.embed import Embedding
from smn_cli.features.readout import learn_readout
from smn_cli.runs.run_config import plan_of, preprocessing_in, restore_threads
from smn_cli.runs.run_folder import RunFolder
from smn_cli.runs.run_labels import read_labels
from smn_cli.schemas.readout_kinds import LINEAR_KINDS, LinearKind
from smn_cli.training.image_split import split_images


def check_kind(name: str | None) -> LinearKind | None:
    """A kind of readout by name; None stays None.

    Raises:
        UsageError: there is none of that name.
    """
    if name is None:
        return None
    for kind in LINEAR_KINDS:
        if name == kind:
            return kind
    raise UsageError(f"`readout` {name} is unknown: expected one of {', '.join(LINEAR_KINDS)}")


def with_readout_of_run(
    adapter: Adapter,
    folder: RunFolder,
    backbone: Backbone,
    kind: LinearKind,
    *,
    device: str = "cpu",
    num_workers: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Adapter:
    """A run's adapter with a readout, read back from its own bytes.

    Args:
        adapter: of the run, see `pack_run`.
        folder: of the run, which lists its images.
        backbone: the base; moved to the device and left as the base.
        kind: "centred", "whitened" or "stages".
        device, num_workers: where the images are embedded, and how many processes load them.
        progress: called with (images embedded, images in all).

    Raises:
        CheckpointError: the run folder is damaged.
        DataError: an image is gone or cannot be read, or they are too few.
        BackboneError: the network has no stages to read.
    """
    config = folder.read_config()
    paths = readout_images(folder)
    embedding = Embedding(preprocessing_in(config, folder), num_workers=num_workers)
    model = backbone.model.to(torch.device(device)).to(memory_format=torch.channels_last).eval()
    threads_before = restore_threads(config, folder)  # another number of them would round the features otherwise
    try:
        with adapter.applied(model):
            readout = learn_readout(
                model,
                paths,
                kind,
                embedding,
                progress=None if progress is None else lambda done: progress(done, len(paths)),
            )
    finally:
        torch.set_num_threads(threads_before)
    return adapter_from_bytes(adapter.with_readout(readout).to_bytes())


def readout_images(folder: RunFolder) -> list[Path]:
    """At most 5,000 of a run's images, evenly spaced, without those that were held out to judge by.

    Raises:
        CheckpointError: the run folder is damaged.
        DataError: one of them is gone.
    """
    config, images = folder.read_config(), folder.read_images()
    plan = plan_of(config, folder)
    held_out: set[Path] = set()
    if plan.num_holdout:
        labeled = read_labels(folder, config) if plan.num_classes else None
        held_out = set(split_images(images, plan, labeled).held_out)
    training = [path for path in images if path not in held_out]
    chosen = training[:: -(-len(training) // MAX_FITTED) or 1]
    for path in chosen:
        if not path.exists() and not is_archive_member(path):
            raise DataError(
                f"{path} of {folder.path} is gone: a readout is fitted to the run's images; put them back, or pack "
                "without `readout`"
            )
    return chosen
