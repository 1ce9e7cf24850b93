"""The labels of a run on disk, and the classifiers that are fitted to the base's features before the first step."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from smn_cli.backbones.loading import Backbone
from smn_cli.data.labels.labeled_images import LabeledImages
from smn_cli.data.preprocessing import Preprocessing
from smn_cli.data.views.loader import image_batches
from smn_cli.errors import CheckpointError
from smn_cli.evaluation.classifier import (
    DECAYS,
    MAX_IMAGES,
    LinearClassifier,
    best_classifier,
    fit_classifier,
    root_mean_square,
)
from smn_cli.evaluation.features import extract_features, on_device
from smn_cli.runs.run_folder import RunFolder

LABELS_FILE, BASE_HEAD_FILE = "labels.safetensors", "base_head.safetensors"


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


def save_base_head(
    folder: RunFolder,
    backbone: Backbone,
    labeled: LabeledImages,
    training: Sequence[Path],
    held_out: Sequence[Path],
    preprocessing: Preprocessing,
    *,
    num_workers: int,
) -> None:
    """Fit the base's own classifier to the training images as they are, and keep it.

    Beside it the one that training starts with, of the strongest decay: one that has nothing left to learn would hand
    the scores no gradient.

    Args:
        folder: of the run.
        backbone: the base.
        labeled: classes of all images.
        training, held_out: images to fit to, and those that the strength of the decay is chosen by. The judge sees the
            latter again, so that it is the base that a choice favours; none if they are among the training images.
        preprocessing: of the working size.
        num_workers: image loading processes.
    """
    network = on_device(backbone.model, next(backbone.model.parameters()).device)
    chosen = training[:MAX_IMAGES]
    paths = [*chosen, *held_out]
    features = extract_features(network, image_batches(paths, preprocessing, num_workers=num_workers))
    own, test = features[: len(chosen)], features[len(chosen) :]
    labels, num_classes = labeled.labels(chosen), len(labeled.classes)
    start = fit_classifier(own, labels, num_classes, decay=DECAYS[0])
    if held_out:
        best = best_classifier(own, labels, test, labeled.labels(held_out), num_classes)
    else:
        best = fit_classifier(own, labels, num_classes, decay=DECAYS[1])
    scale = torch.tensor(root_mean_square(own), dtype=torch.float64)
    tensors = {"weight": best.weight, "bias": best.bias, "start_weight": start.weight, "start_bias": start.bias}
    folder.save_tensors(BASE_HEAD_FILE, {**tensors, "scale": scale})


def read_base_head(folder: RunFolder) -> LinearClassifier:
    """The base's own classifier.

    Raises:
        CheckpointError: it is missing or damaged.
    """
    tensors = folder.load_tensors(BASE_HEAD_FILE)
    return LinearClassifier(tensors["weight"], tensors["bias"])


def read_start(folder: RunFolder) -> tuple[LinearClassifier, float]:
    """The classifier that training starts with, and the scale of the base's features.

    Raises:
        CheckpointError: it is missing or damaged.
    """
    tensors = folder.load_tensors(BASE_HEAD_FILE)
    return LinearClassifier(tensors["start_weight"], tensors["start_bias"]), float(tensors["scale"])
