"""The public Python API, which the commands are made of; re-exported by `smn_cli`."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from smn_cli.adapters.adapter import Adapter, load_adapter, make_adapter
from smn_cli.adapters.fingerprint import fingerprint, select_base
from smn_cli.adapters.head import StoredHead
from smn_cli.adapters.swap import Change, TunedWeights
from smn_cli.atomic import write_atomically
from smn_cli.backbones.loading import Backbone, load_backbone, load_with_timm, wrap_backbone
from smn_cli.backbones.weight_files import read_weight_file
from smn_cli.cascade.cascade import Cascade
from smn_cli.cascade.file import load_cascade
from smn_cli.config.options import AdaptOptions
from smn_cli.data.classes import find_labeled_images
from smn_cli.data.finding import find_images
from smn_cli.data.preprocessing import Preprocessing
from smn_cli.errors import AdapterFileError, BackboneError, CheckpointError, MismatchError, UsageError
from smn_cli.training.classifying import rounded
from smn_cli.training.preparing import check_for_run
from smn_cli.training.record import Learned, check_run_base, plan_of, read_learned
from smn_cli.training.run_folder import RunFolder
from smn_cli.training.session import RunOptions, Session
from smn_cli.training.trainer import StepReport

__all__ = ["Adapter", "Cascade", "adapt", "apply_adapter", "load_adapter", "load_cascade", "save_adapter"]


def adapt(
    model: nn.Module,
    images: str | Path | Sequence[str | Path],
    *,
    out: str | Path | None = None,
    device: str = "cpu",
    num_workers: int = 0,
    on_step: Callable[[StepReport], None] | None = None,
    **settings: Any,
) -> Adapter:
    """Learn a mask for a timm model from images, unlabeled or, with labels="folders", in class folders.

    Args:
        model: a pretrained timm model. Its classifier is taken off and it is frozen; no weight of it changes.
        images: folders, files, tars or lists of paths.
        out: run folder to make, with metrics and checkpoints; a temporary one if not given.
        device: where to train.
        num_workers: image loading processes.
        on_step: called after every step.
        **settings: fields of `smn_cli.config.AdaptOptions`, such as recipe, steps, batch_size, size, seed.

    Returns:
        The adapter; put it on a model with `Adapter.apply`, write it with `save_adapter`.

    Raises:
        SmnError: one of its kinds says what is wrong with images, model or settings.
    """
    wishes = AdaptOptions(**settings)
    if wishes.train == "full":
        raise UsageError("adapt returns an adapter, and train='full' has none: run smn adapt --train full")
    backbone = wrap_backbone(model)
    inputs = [images] if isinstance(images, str | Path) else list(images)
    labeled = find_labeled_images(inputs, wishes)
    checked = check_for_run(find_images(inputs) if labeled is None else labeled.paths, wishes)
    with TemporaryDirectory() as temporary:
        session = Session.start(
            Path(out) if out is not None else Path(temporary, "run"),
            backbone,
            checked,
            wishes,
            options=RunOptions(device, num_workers),
            labeled=labeled,
        )
        try:
            for report in session.steps():
                if on_step is not None:
                    on_step(report)
        finally:
            session.close()
        return pack_run(session.folder, backbone)


def apply_adapter(model: nn.Module, path: str | Path) -> nn.Module:
    """Turn a pretrained timm model into the adapted network, in place; `load_adapter(path).remove(model)` undoes it.

    Raises:
        AdapterFileError: the file is damaged.
        MismatchError: the model is not the base it was made for; the message names the first tensor that differs.
    """
    return load_adapter(path).apply(model)


def save_adapter(adapter: Adapter, path: str | Path) -> None:
    """Write an adapter to one file, atomically.

    Raises:
        OSError: the folder is missing or not writable.
    """
    adapter.save(path)


def pack_run(folder: RunFolder, backbone: Backbone, *, codec: str = "auto") -> Adapter:
    """The adapter of a run's last checkpoint.

    Args:
        folder: of the run.
        backbone: the base it was started with.
        codec: a codec's name, or "auto" for the smallest.

    Raises:
        CheckpointError, MismatchError: the run is damaged, or the base another one.
    """
    config = folder.read_config()
    plan = plan_of(config, folder)
    check_run_base(config, backbone)
    learned = read_learned(folder)
    if plan.train == "full":
        raise UsageError(f"{folder.path} trained the weights themselves (--train full): there is no mask to pack")
    empty = [name for name, mask in learned.masks.items() if not mask.any()]
    if empty:
        raise CheckpointError(f"{folder.path}: the mask of {empty[0]} is empty; lower --lr-scores and train again")
    settings = {key: value for key, value in config["plan"].items() if key != "reasons"}
    return make_adapter(
        backbone.model.state_dict(),
        learned.masks,
        arch=backbone.arch,
        tag=backbone.tag,
        norm_stats=learned.norm_stats,
        preprocessing=config["preprocessing"],
        provenance={
            "images": config["images"]["good"],
            "plan": settings,
            "step": learned.step,
            "finished": learned.is_finished,
            "judge": config["judge"],
            "judge_gain": learned.judge_gain,
            "alarms": list(learned.alarms),
            "versions": config["versions"],
        },
        codec=codec,
        head=_head_of(learned, config, backbone),
    )


def _head_of(learned: Learned, config: dict[str, Any], backbone: Backbone) -> StoredHead | None:
    if learned.classifier is None:
        return None
    return rounded(learned.classifier, name=backbone.classifier_name, classes=tuple(config["classes"]))


def change_of_run(folder: RunFolder, backbone: Backbone) -> Change:
    """What a run made of its base: an adapter, or for the full fine-tuning baseline weights.

    Raises:
        CheckpointError, MismatchError: the run is damaged, or the base another one.
    """
    config = folder.read_config()
    if plan_of(config, folder).train != "full":
        return pack_run(folder, backbone, codec="bits")
    check_run_base(config, backbone)
    learned = read_learned(folder)
    return TunedWeights({**learned.weights, **learned.norm_stats}, _head_of(learned, config, backbone))


@dataclass(frozen=True)
class RebuiltNetwork:
    """An adapted network as a plain state dict, for a checkpoint file.

    `takes_any_size` tells whether timm has to be asked for position embeddings that adjust to the image.
    `num_classes` is that of the classifier: the adapter's, if it carries one, else the one that came with the weights
    and is in it unchanged; 0 if there is none. `classes` names them, if the adapter does.
    """

    state: dict[str, Tensor]
    num_classes: int
    takes_any_size: bool
    classes: tuple[str, ...] = ()

    def load_line(self, arch: str, path: Path) -> str:
        """The Python expression that loads it with timm."""
        extra = "" if self.num_classes == 1000 else f", num_classes={self.num_classes}"
        extra += ", dynamic_img_size=True" if self.takes_any_size else ""
        return f"timm.create_model({arch!r}{extra}, checkpoint_path={str(path)!r})"


def rebuild(adapter: Adapter, backbone: Backbone, *, with_classifier: bool = True) -> RebuiltNetwork:
    """The adapted network over its base, checked against the recorded digests.

    Raises:
        MismatchError, AdapterFileError: as in `Adapter.rebuild`.
    """
    state = adapter.rebuild(backbone.model.state_dict())
    head = adapter.head if with_classifier else None
    classifier = {} if not with_classifier else backbone.classifier if head is None else head.tensors()
    return RebuiltNetwork(
        {**state, **classifier},
        next((len(tensor) for tensor in classifier.values()), 0),
        backbone.takes_any_size,
        () if head is None else head.classes,
    )


def save_checkpoint(network: RebuiltNetwork, path: Path) -> None:
    """Write a state dict as safetensors, atomically; class names stand in its metadata, as JSON.

    Raises:
        OSError: the folder is missing or not writable.
    """
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in network.state.items()}
    names = {"classes": json.dumps(network.classes)} if network.classes else {}
    write_atomically(path, save(tensors, metadata={"format": "pt", **names}))


def check_rebuilt_outputs(live: nn.Module, arch: str, checkpoint: Path, num_classes: int, *, size: int = 64) -> bool:
    """Whether plain timm, loading a checkpoint, computes the same bits as a live adapted network.

    Args:
        live: adapted backbone without classifier, on the CPU.
        arch, checkpoint, num_classes: what timm is given.
        size: of the random images that both see.
    """
    loaded = load_with_timm(arch, checkpoint, num_classes)
    images = torch.rand(4, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        return torch.equal(live.eval()(images), loaded(images))


def check_checkpoint(adapter: Adapter, path: Path) -> None:
    """Hold a checkpoint of `save_checkpoint` against the digest an adapter recorded.

    Raises:
        MismatchError: it is another network.
        FileError, DataError: it cannot be read.
    """
    tensors = read_weight_file(path).tensors
    found = fingerprint(select_base(tensors, adapter.base_fingerprint)).digest
    if found != adapter.header.adapted_digest:
        raise MismatchError(
            f"--checkpoint {path} is not the adapted network: digest {found[:12]}... instead of "
            f"{adapter.header.adapted_digest[:12]}...; rebuild it with smn apply"
        )


def preprocessing_for(adapter: Adapter) -> Preprocessing:
    """How images were prepared when the adapter was made.

    Raises:
        AdapterFileError: the file does not say it in a usable way.
    """
    try:
        return Preprocessing.from_json(adapter.header.preprocessing)
    except (KeyError, TypeError, ValueError) as error:
        raise AdapterFileError(f"the adapter's preprocessing is unusable: {error}") from None


def backbone_for(adapter: Adapter, weights: str | Path | None) -> Backbone:
    """The base an adapter asks for, from a file or from timm's hub.

    Raises:
        BackboneError: the weights cannot be had or do not fit.
    """
    if weights is None and not adapter.header.tag:
        raise BackboneError(
            f"the adapter was made over weights of {adapter.header.arch} from a file, not from timm's hub: "
            "give that file with --weights"
        )
    return load_backbone(adapter.made_for if weights is None else adapter.header.arch, weights)
