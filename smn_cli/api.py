"""The public Python API, which the commands are made of; re-exported by `smn_cli`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from smn_cli.adapters.adapter import Adapter, load_adapter, remove_adapter
from smn_cli.adapters.adapter_set import AdapterSet
from smn_cli.adapters.placing import Placement
from smn_cli.backbones.loading import Backbone
from smn_cli.cascade.cascade import Cascade
from smn_cli.cascade.file import load_cascade
from smn_cli.config.option import takes_settings
from smn_cli.config.options import AdaptOptions
from smn_cli.data.images.find import find_images
from smn_cli.data.images.validate import check_images
from smn_cli.data.labels.eval_split import LabeledSplit, load_labeled_split
from smn_cli.data.labels.labeled_images import find_labeled_images
from smn_cli.embedding import ImageFeatures, embed_images
from smn_cli.errors import UsageError
from smn_cli.evaluation.compare import Comparison, ScoringProtocol
from smn_cli.features.cache import FeatureCache
from smn_cli.features.embed import Embedding
from smn_cli.objectives.table import refuse_idle_options
from smn_cli.recipes import TRAIN_MODES, Precision
from smn_cli.runs.pack import pack_run
from smn_cli.runs.run_folder import RunFolder
from smn_cli.scoring import evaluate_cascade, evaluate_networks
from smn_cli.training.image_split import check_for_run
from smn_cli.training.run_context import Execution, RunRequest
from smn_cli.training.run_readout import check_kind, with_readout_of_run
from smn_cli.training.session import Session
from smn_cli.training.teachers import check_teachers
from smn_cli.training.trainer import StepReport
from smn_cli.user_models import base_of, device_of, open_masks, preprocessing_for, process_kept

__all__ = [
    "AdaptOptions",
    "Adapter",
    "AdapterSet",
    "Cascade",
    "Comparison",
    "ImageFeatures",
    "Placement",
    "StepReport",
    "adapt",
    "apply_adapter",
    "embed",
    "evaluate",
    "load_adapter",
    "load_cascade",
    "remove_adapter",
    "save_adapter",
]

Images = str | Path | Sequence[str | Path]
Masks = Adapter | Cascade | str | Path


@takes_settings(AdaptOptions)
def adapt(
    model: nn.Module,
    images: Images | None = None,
    options: AdaptOptions | None = None,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    apply: bool = False,
    val: str | Path | None = None,
    readout: str | None = None,
    device: str | torch.device | None = None,
    num_workers: int = 0,
    on_step: Callable[[StepReport], None] | None = None,
    **settings: Any,
) -> Adapter:
    """Learn a mask for a timm model from images, unlabeled or, with labels="folders", in class folders.

        adapter = smn_cli.adapt(model, "./images", steps=500, apply=True)

    A copy of the model is trained: the model itself keeps its classifier, modes, flags, device, hooks and values,
    whatever happens. So memory holds the network once more, beside what training takes. Hooks are copied along and see
    the images of the training.

    Args:
        model: a pretrained timm model, with or without its classifier. An adapter on it is left out of account.
        images: folders, files, archives (tar, zip, parquet) or lists of paths; to be left out with `resume`.
        options: what to learn and how; None is all defaults.
        out: run folder to make, with metrics and checkpoints; a temporary one if not given.
        resume: go on with the run in `out`, with its images and settings, to the masks it would have had.
        overwrite: replace a run in `out`.
        apply: put the adapter on the model at the end, in place of one that is on it.
        readout: "centred", "whitened" or "stages": fit one to the images at the end, for the adapter to carry.
        val: labeled folders that decide what is kept, instead of held-out images; a run that goes on remembers them.
        device: where to train; None is where the model is.
        num_workers: image loading processes; they do not change the result.
        on_step: called after every step.
        **settings: fields of `AdaptOptions`, such as recipe, steps, batch_size, size, seed; they go before `options`.

    Returns:
        The adapter; put it on a model with `Adapter.apply`, write it with `save_adapter`.

    Raises:
        UsageError: arguments or settings that do not go together, or there is a run in `out`.
        DataError, BackboneError: images or model do not do.
        CheckpointError, MismatchError: the run in `out` cannot go on, or not with this model.
        TrainingError: training cannot go on.
    """
    if resume and (out is None or images is not None or options is not None or settings or overwrite):
        raise UsageError("`resume` goes on with the run in `out`: give `out`, and neither `images` nor settings")
    if not resume and images is None:
        raise UsageError("adapt needs `images`, or `resume` with the `out` of a run")
    options = replace(options or AdaptOptions(), **settings)
    if not TRAIN_MODES[options.train].has_mask:
        raise UsageError("adapt returns an adapter, and train='full' has none: run smn adapt --train full")
    kind = check_kind(readout)
    backbone = base_of(model)
    execution = Execution(device_of(model, device), num_workers)
    with process_kept(execution.device), TemporaryDirectory() as temporary:
        folder = Path(temporary, "run") if out is None else Path(out)
        if images is None:
            session = _resumed(folder, backbone, execution, val)
        else:
            session = _started(folder, backbone, images, options, execution, val, overwrite)
        try:
            for report in session.steps():
                if on_step is not None:
                    on_step(report)
        finally:
            session.close()
        adapter = pack_run(session.folder, backbone)
        if kind is not None:
            where = execution.device
            adapter = with_readout_of_run(
                adapter, session.folder, backbone, kind, device=where, num_workers=num_workers
            )
    if apply:
        adapter.apply(model)
    return adapter


def evaluate(
    model: nn.Module,
    data: str | Path,
    adapter: Masks | None = None,
    *,
    knn: bool = True,
    linear: bool = False,
    k: Sequence[int] = ScoringProtocol.ks,
    linear_c: float | None = None,
    controls: bool = False,
    size: int | None = None,
    max_train: int | None = None,
    max_test: int | None = None,
    seed: int = 0,
    device: str | torch.device | None = None,
    precision: Precision = "fp32",
    num_workers: int = 0,
    cache: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Comparison:
    """Score base and adapted features on labeled folders, as `smn eval` does.

        comparison = smn_cli.evaluate(model, "./labeled", "adapter.safetensors", linear=True)
        print(comparison.verdict, comparison.gains["knn.top1"])

    Args:
        model: a timm model, with or without its classifier, the base of the adapter; a copy is used.
        data: holds `train/` and `test/` (or `val/`) with class folders, or class folders alone, which are split.
        adapter: an adapter or a cascade, or its file; None scores the model alone, with what is on it now.
        knn, linear: which scores.
        k: neighbours; the first gives knn.top1, the others top1@k.
        linear_c: C of the linear probe; None chooses it on the training images, for each network.
        controls: put beside the scores what needs no training, as `ControlledComparison`; not of a cascade.
        size: side of the images in pixels; by default the adapter's, without one the model's own.
        max_train, max_test: most images used, drawn evenly over the classes.
        seed: of a split made here, and of the limits.
        device: None is where the model is.
        precision: "fp32" or "bf16".
        num_workers: image loading processes.
        cache: look for features in smn's cache, and keep them there.
        progress: called with the number of images embedded so far, over all networks.

    Returns:
        Accuracies (0 to 1) of base and adapted, paired gains with their intervals, and the verdict.

    Raises:
        DataError: no such folders, an unreadable image, fewer than two classes.
        MismatchError: the model is not the adapter's base.
        AdapterFileError: the file is damaged.
        UsageError, BackboneError: limits or sizes that do not do.
    """
    split = load_labeled_split(Path(data), seed=seed, max_train=max_train, max_test=max_test)
    change = open_masks(adapter)
    backbone = base_of(model, as_it_is=change is None)
    where = device_of(model, device)
    preprocessing = preprocessing_for(backbone, change, size)
    embedding = Embedding(preprocessing, precision, num_workers, FeatureCache() if cache else None)
    protocol = ScoringProtocol(knn=knn, linear=linear, ks=tuple(k), c=linear_c)
    with process_kept(where):
        if isinstance(change, Cascade):
            return evaluate_cascade(backbone, change, split, embedding, protocol, device=where, progress=progress)
        return evaluate_networks(
            backbone, change, split, embedding, protocol, controls=controls, device=where, progress=progress
        )


def embed(
    model: nn.Module,
    images: Images,
    adapter: Masks | None = None,
    *,
    size: int | None = None,
    l2: bool = False,
    readout: bool = True,
    max_bad: float = 0.01,
    device: str | torch.device | None = None,
    precision: Precision = "fp32",
    num_workers: int = 0,
    progress: Callable[[int], None] | None = None,
) -> ImageFeatures:
    """Features of image files under a model or an adapted one, as `smn embed` writes them.

        features, paths, bad = smn_cli.embed(model, "./images", "adapter.safetensors", l2=True)

    Args:
        model: a timm model, with or without its classifier; a copy is used.
        images: folders, files, archives (tar, zip, parquet) or lists of paths.
        adapter: an adapter or a cascade, or its file; None takes the model alone, with what is on it now.
        size: side of the images in pixels; by default the adapter's, without one the model's own.
        l2: scale every image's features to length 1.
        readout: give what the adapter's readout makes of the features, if it carries one.
        max_bad: largest fraction of bad files that is put up with, 0 to 1.
        device: None is where the model is.
        precision: "fp32" or "bf16"; features are float32 either way.
        num_workers: image loading processes.
        progress: called with the number of images embedded so far.

    Raises:
        DataError: no images, or too many that cannot be used.
        MismatchError: the model is not the adapter's base.
        AdapterFileError: the file is damaged.
        BackboneError: the model cannot take images of that size.
    """
    found = check_images(find_images(_listed(images)), max_bad=max_bad)
    change = open_masks(adapter)
    backbone = base_of(model, as_it_is=change is None)
    where = device_of(model, device)
    embedding = Embedding(preprocessing_for(backbone, change, size), precision, num_workers)
    carried = change.readout if readout and isinstance(change, Adapter) else None
    with process_kept(where):
        return embed_images(backbone, change, found, embedding, device=where, l2=l2, readout=carried, progress=progress)


def apply_adapter(
    model: nn.Module, path: str | Path, base: nn.Module | Mapping[str, Tensor] | None = None
) -> nn.Module:
    """Turn a pretrained timm model into the adapted network, in place; `remove_adapter(model)` undoes it.

    Args:
        model: of timm, or a network with one inside, or what `features_only` leaves of one; see `Adapter.apply`.
        path: adapter file.
        base: the whole base, where `model` lacks a part of it that is needed.

    Returns:
        The same object.

    Raises:
        AdapterFileError: the file is damaged.
        MismatchError: the model is not the base it was made for; the message names the first tensor that differs.

    Warns:
        LeftOutWarning: the model lacks tensors that the adapter changes.
    """
    return load_adapter(path).apply(model, base)


def save_adapter(adapter: Adapter, path: str | Path) -> None:
    """Write an adapter to one file, atomically.

    Raises:
        OSError: the folder is missing or not writable.
    """
    adapter.save(path)


def _started(
    folder: Path,
    backbone: Backbone,
    images: Images,
    options: AdaptOptions,
    execution: Execution,
    val: str | Path | None,
    overwrite: bool,
) -> Session:
    refuse_idle_options(options)
    inputs = _listed(images)
    labeled = find_labeled_images(inputs, options)
    check_teachers((*options.teacher, *filter(None, [options.witness])))
    checked = check_for_run(find_images(inputs) if labeled is None else labeled.paths, options)
    request = RunRequest(folder, checked, options, overwrite=overwrite, val=_judging(val), labeled=labeled)
    return Session.start(request, backbone, execution=execution)


def _resumed(folder: Path, backbone: Backbone, execution: Execution, val: str | Path | None) -> Session:
    remembered = RunFolder.open(folder).read_config().get("val")
    return Session.resume(folder, backbone, execution=execution, val=_judging(val or remembered or None))


def _judging(val: str | Path | None) -> LabeledSplit | None:
    return None if val is None else load_labeled_split(Path(val), for_selection=True)


def _listed(images: Images) -> list[str | Path]:
    return [images] if isinstance(images, str | Path) else list(images)
