"""Runs with labels: what stands in their folder, and the judge that counts right answers."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from smn_cli.adapters.head import StoredHead, store_head
from smn_cli.backbones.loading import Backbone
from smn_cli.data.classes import LabeledImages
from smn_cli.data.kept import KeptImages
from smn_cli.data.labeled import LabeledSplit
from smn_cli.data.loading import image_batches
from smn_cli.data.preprocessing import Preprocessing
from smn_cli.errors import BackboneError, CheckpointError, DataError, TrainingError, first_few
from smn_cli.evaluation.classifier import (
    DECAYS,
    MOST_IMAGES,
    LinearClassifier,
    best_classifier,
    fit_classifier,
    root_mean_square,
)
from smn_cli.evaluation.features import extract_features, on_device
from smn_cli.evaluation.intervals import paired_difference
from smn_cli.training.distributed import Team
from smn_cli.training.panel import Judgement, Network
from smn_cli.training.run_folder import RunFolder

LABELS_FILE, BASE_HEAD_FILE = "labels.safetensors", "base_head.safetensors"


def check_classes(backbone: Backbone, labeled: LabeledImages | None) -> int:
    """Number of classes; 0 without labels.

    Raises:
        BackboneError: timm's classifier of this network is not one linear layer, so that none could be put back.
    """
    if labeled is None:
        return 0
    if not backbone.classifier_name:
        raise BackboneError(
            f"the classifier of {backbone.arch} is not one linear layer over the features: --labels cannot replace it; "
            "choose another --arch"
        )
    return len(labeled.classes)


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
    chosen = training[:MOST_IMAGES]
    paths = [*chosen, *held_out]
    features = extract_features(network, image_batches(paths, preprocessing, num_workers=num_workers))
    own, queries = features[: len(chosen)], features[len(chosen) :]
    labels, num_classes = labeled.labels(chosen), len(labeled.classes)
    start = fit_classifier(own, labels, num_classes, decay=DECAYS[0])
    if held_out:
        best = best_classifier(own, labels, queries, labeled.labels(held_out), num_classes)
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


class ClassifierJudge:
    """Accuracy of network and classifier on labeled images that never train, against the base with its own classifier.

    Args:
        images: to judge by.
        labels: (Q,) int64 of these; -1 is a class that no classifier knows.
        preprocessing: of the working size.
        base: the frozen network.
        base_head: its classifier, fitted to the same training images.
        team: the processes that share the run; each embeds a share of the images, and all judge alike.
    """

    def __init__(
        self,
        images: Sequence[Path],
        labels: Tensor,
        preprocessing: Preprocessing,
        base: Network,
        base_head: StoredHead,
        team: Team | None = None,
    ) -> None:
        self._team = team or Team()
        self._labels = labels
        self._images = KeptImages(self._team.own(list(images)), preprocessing)
        self._rounded = partial(rounded, name=base_head.name, classes=base_head.classes)
        self._base = self._correct(base, base_head)

    def judge(self, network: Network, classifier: LinearClassifier, *, beside: dict[str, float]) -> Judgement:
        """Compare a network and its classifier, rounded as an adapter carries it, with the base and its own.

        Without alarms: classes may well need fewer directions than the health panel of other runs asks for.

        Args:
            network: as it is now.
            classifier: of its features.
            beside: measures of the health panel, which are handed on.

        Raises:
            TrainingError: the features or the classifier are no longer numbers.
        """
        correct = self._correct(network, self._rounded(classifier))
        measures = {**beside, "classifier.top1": _mean(correct), "base classifier.top1": _mean(self._base)}
        return Judgement(paired_difference(self._base.double(), correct.double()), True, measures)

    def _correct(self, network: Network, head: StoredHead) -> Tensor:
        features = self._team.joined(extract_features(network, self._images.batches()), len(self._labels))
        if not torch.isfinite(features).all():
            raise TrainingError("the features are no longer finite numbers: lower --lr-scores")
        return head.classifier().logits(features).argmax(dim=1) == self._labels


def labels_in_order(split: LabeledSplit, classes: Sequence[str]) -> Tensor:
    """(Q,) labels of a split's queries as a run numbers its classes.

    Raises:
        DataError: the split has a class that the run does not know.
    """
    number = {name: label for label, name in enumerate(classes)}
    strangers = [name for name in split.classes if name not in number]
    if strangers:
        raise DataError(f"--val {split.folder} has classes that the training images do not: {first_few(strangers)}")
    return torch.tensor([number[split.classes[label]] for label in split.query_labels])


def rounded(classifier: LinearClassifier, *, name: str, classes: tuple[str, ...]) -> StoredHead:
    """A classifier as an adapter carries it.

    Raises:
        TrainingError: its weights are no longer numbers.
    """
    try:
        return store_head(classifier, name=name, classes=classes)
    except ValueError as error:
        raise TrainingError(f"{error}: lower --lr-head") from None


def _mean(correct: Tensor) -> float:
    return float(correct.double().mean())
