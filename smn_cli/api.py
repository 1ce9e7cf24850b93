"""The public Python API, which the commands are made of; re-exported by `smn_cli`."""

from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import nn

from smn_cli.adapters.adapter import Adapter, load_adapter
from smn_cli.backbones.loading import wrap_backbone
from smn_cli.cascade.cascade import Cascade
from smn_cli.cascade.file import load_cascade
from smn_cli.config.option import takes_settings
from smn_cli.config.options import AdaptOptions
from smn_cli.data.images.find import find_images
from smn_cli.data.labels.labeled_images import find_labeled_images
from smn_cli.errors import UsageError
from smn_cli.recipes import TRAIN_MODES
from smn_cli.runs.pack import pack_run
from smn_cli.training.image_split import check_for_run
from smn_cli.training.run_context import Execution, RunRequest
from smn_cli.training.session import Session
from smn_cli.training.trainer import StepReport

__all__ = ["Adapter", "Cascade", "adapt", "apply_adapter", "load_adapter", "load_cascade", "save_adapter"]


@takes_settings(AdaptOptions)
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
        **settings: fields of `smn_cli.config.options.AdaptOptions`.

    Returns:
        The adapter; put it on a model with `Adapter.apply`, write it with `save_adapter`.

    Raises:
        SmnError: one of its kinds says what is wrong with images, model or settings.
    """
    options = AdaptOptions(**settings)
    if not TRAIN_MODES[options.train].has_mask:
        raise UsageError("adapt returns an adapter, and train='full' has none: run smn adapt --train full")
    backbone = wrap_backbone(model)
    inputs = [images] if isinstance(images, str | Path) else list(images)
    labeled = find_labeled_images(inputs, options)
    checked = check_for_run(find_images(inputs) if labeled is None else labeled.paths, options)
    with TemporaryDirectory() as temporary:
        folder = Path(out) if out is not None else Path(temporary, "run")
        request = RunRequest(folder, checked, options, labeled=labeled)
        session = Session.start(request, backbone, execution=Execution(device, num_workers))
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
