"""The labels of a run on disk."""

from typing import Any

import torch

from smn_cli.data.labels.labeled_images import LabeledImages
from smn_cli.errors import CheckpointError
from smn_cli.runs.run_folder import LABELS_FILE, RunFolder


def save_labels(folder: RunFolder, labeled: LabeledImages) -> None:
    """Keep the labels of a run's images, in the order of its list of them."""
    folder.save_tensors(LABELS_FILE, {"labels": labeled.labels(folder.read_images())})


def read_labels(folder: RunFolder, config: dict[str, Any]) -> LabeledImages:
    """The labels of a run's images.

    Raises:
        CheckpointError: they are missing, damaged, or not those of its images.
    """
    images, labels = folder.read_images(), folder.load_tensors(LABELS_FILE).get("labels", torch.empty(0))
    classes = tuple(config.get("classes", ()))
    if len(labels) != len(images) or int(labels.max()) >= len(classes):
        raise CheckpointError(f"{folder.path}: its labels are not those of its images: start the run again")
    return LabeledImages(classes, dict(zip(images, labels.tolist(), strict=True)))
