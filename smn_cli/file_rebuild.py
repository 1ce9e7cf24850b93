"""An adapted network as a plain checkpoint, over a base in a safetensors file, without torch and without a network.

What a network would be built for is known where the file holds the base just as it was recorded: names, shapes and
types by its fingerprint, and of the plain ResNets also which other tensors are their classifier and their counters.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np

from smn_cli.adapters.array_rebuild import rebuild_arrays
from smn_cli.adapters.base_file import read_matching_base, read_others
from smn_cli.adapters.fingerprint import IGNORED_SUFFIX
from smn_cli.adapters.stored import StoredAdapter
from smn_cli.atomic import atomic_path
from smn_cli.backbones.resnets import CLASSIFIER, is_whole_resnet

T = TypeVar("T")


@dataclass(frozen=True)
class RebuiltNetwork(Generic[T]):
    """An adapted network as a plain state dict, for a checkpoint file.

    `takes_any_size` tells whether timm has to be asked for position embeddings that adjust to the image.
    `num_classes` is that of the classifier: the adapter's, if it carries one, else the one that came with the weights
    and is in it unchanged; 0 if there is none. `classes` names them, if the adapter does. Where a readout, of that
    kind, stands in its place, they are the numbers that it gives, without names.
    """

    state: dict[str, T]
    num_classes: int
    takes_any_size: bool
    classes: tuple[str, ...] = ()
    readout: str | None = None

    def load_line(self, arch: str, path: Path) -> str:
        """The Python expression that loads it with timm."""
        extra = "" if self.num_classes == 1000 else f", num_classes={self.num_classes}"
        extra += ", dynamic_img_size=True" if self.takes_any_size else ""
        return f"timm.create_model({arch!r}{extra}, checkpoint_path={str(path)!r})"

    def metadata(self) -> dict[str, str]:
        """Of its file: class names as JSON, beside what loaders of torch look for."""
        return {"format": "pt"} | ({"classes": json.dumps(self.classes)} if self.classes else {})


def save_arrays(network: RebuiltNetwork[np.ndarray], path: Path) -> None:
    """Write a network of `rebuild_from_file` as safetensors, atomically.

    Raises:
        OSError: the folder is missing or not writable, or the disk is full.
    """
    from safetensors.numpy import save_file

    with atomic_path(path) as temporary:
        save_file(network.state, temporary, metadata=network.metadata())


def prove_rebuild(adapter: StoredAdapter, weights: Path) -> bool:
    """Whether a file holds the base, and it rebuilds to what was recorded; false where a network has to be asked.

    Raises:
        MismatchError, AdapterFileError: as in `rebuild_arrays`.
    """
    base = read_matching_base(weights, adapter.base_fingerprint)
    return base is not None and rebuild_arrays(adapter, base) is not None


def rebuild_from_file(
    adapter: StoredAdapter, weights: Path, *, with_classifier: bool = True
) -> RebuiltNetwork[np.ndarray] | None:
    """The adapted network over the base that a file holds, checked against the recorded digests.

    Returns:
        The same tensors as `rebuild` gives. None where a network has to be built to know them, or to say what is wrong.

    Raises:
        MismatchError, AdapterFileError: as in `rebuild_arrays`.
    """
    base = read_matching_base(weights, adapter.base_fingerprint)
    if base is None or not is_whole_resnet(adapter.arch, {name: array.shape for name, array in base.items()}):
        return None
    others = read_others(weights, adapter.base_fingerprint)
    if others is None or not _are_counters_and_classifier(others, base):
        return None
    state = rebuild_arrays(adapter, base)
    if state is None:
        return None
    counters = {name: array for name, array in others.items() if name.endswith(IGNORED_SUFFIX)}
    head = adapter.head if with_classifier else None
    classifier = {name: array for name, array in others.items() if name not in counters}
    if head is not None:
        classifier = head.named_arrays()
    elif not with_classifier:
        classifier = {}
    num_classes = len(classifier[f"{CLASSIFIER}.weight"]) if classifier else 0
    return RebuiltNetwork({**state, **counters, **classifier}, num_classes, False, () if head is None else head.classes)


def _are_counters_and_classifier(others: Mapping[str, np.ndarray], base: Mapping[str, np.ndarray]) -> bool:
    """Whether these are what a plain ResNet has beside its base: counters of its norms, and a classifier or none."""
    counters = {name.removesuffix("running_mean") + IGNORED_SUFFIX for name in base if name.endswith("running_mean")}
    weight, bias = (others.get(f"{CLASSIFIER}.{part}") for part in ("weight", "bias"))
    layer = set() if weight is None else {f"{CLASSIFIER}.weight", f"{CLASSIFIER}.bias"}
    if others.keys() != counters | layer or any(_kind(others[name]) != ("int64", 0) for name in counters):
        return False
    return weight is None or bias is None or (_kind(weight), _kind(bias)) == (("float32", 2), ("float32", 1))


def _kind(array: np.ndarray) -> tuple[str, int]:
    return array.dtype.name, array.ndim
