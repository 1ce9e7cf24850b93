"""What a user of the Python API hands over: a model and the process, left as they were, and an adapter or its file."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from smn_cli.adapters.adapter import Adapter, load_adapter, remove_adapter
from smn_cli.adapters.swap import unwrapped
from smn_cli.backbones.checkpointing import checkpointing_choice_kept
from smn_cli.backbones.loading import Backbone, wrap_backbone
from smn_cli.cascade.cascade import Cascade
from smn_cli.cascade.file import load_cascade
from smn_cli.cascade.schema import is_cascade
from smn_cli.data.preprocessing import Preprocessing
from smn_cli.seeding import torch_streams_kept
from smn_cli.training.run_context import preprocessing_of


def base_of(model: nn.Module, *, as_it_is: bool = False) -> Backbone:
    """A copy of a user's model as a backbone, on the same device.

    Args:
        model: of timm, with or without its classifier.
        as_it_is: keep an adapter that is on it; else the copy is the base.

    Raises:
        BackboneError: the model is not timm's.
    """
    own = copy.deepcopy(unwrapped(model))
    return wrap_backbone(own if as_it_is else remove_adapter(own), owned=True)


def device_of(model: nn.Module, wanted: str | torch.device | None) -> str:
    """The device wanted, or that of a model."""
    return str(next(model.parameters()).device if wanted is None else wanted)


def open_masks(masks: Adapter | Cascade | str | Path | None) -> Adapter | Cascade | None:
    """An adapter or a cascade, read if it is the path of a file.

    Raises:
        AdapterFileError: the file is missing, damaged, or neither.
    """
    if isinstance(masks, str | Path):
        return load_cascade(masks) if is_cascade(masks) else load_adapter(masks)
    return masks


def preprocessing_for(backbone: Backbone, masks: Adapter | Cascade | None, size: int | None) -> Preprocessing:
    """How images reach a network: as its adapter or, without one, its weights want, at `size` pixels if given.

    Raises:
        AdapterFileError: the adapter does not say it in a usable way.
    """
    if masks is None:
        return preprocessing_of(backbone, size or backbone.native_size)
    told = (masks.dispatcher if isinstance(masks, Cascade) else masks).preprocessing
    return replace(told, size=size) if size else told


@contextmanager
def process_kept(device: str) -> Iterator[None]:
    """What is one for the process is afterwards what it was: random numbers, threads, timm's way to checkpoint."""
    num_threads = torch.get_num_threads()
    drawing = [torch.device(device)] if torch.device(device).type == "cuda" else []
    with torch_streams_kept(drawing), checkpointing_choice_kept():
        try:
            yield
        finally:
            torch.set_num_threads(num_threads)
