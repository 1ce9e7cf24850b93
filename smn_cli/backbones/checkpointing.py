"""Gradient checkpointing, as timm offers it."""

from collections.abc import Iterator
from contextlib import contextmanager

import timm
from torch import nn

from smn_cli.errors import BackboneError


def checkpoint_gradients(model: nn.Module) -> None:
    """Let a timm model forget most activations and compute them again in the backward pass.

    Raises:
        BackboneError: timm does not offer it for this network.
    """
    try:
        timm.layers.set_reentrant_ckpt(False)  # the other kind loses the gradient of weights that are not arguments
        model.set_grad_checkpointing(True)  # type: ignore[operator]
    except (AttributeError, AssertionError) as error:
        raise BackboneError(f"timm cannot checkpoint this network ({error}): leave `grad_checkpoint` out") from None


@contextmanager
def checkpointing_choice_kept() -> Iterator[None]:
    """timm's choice of how to checkpoint, which is one for the process, is afterwards what it was before."""
    before = timm.layers.use_reentrant_ckpt()
    try:
        yield
    finally:
        timm.layers.set_reentrant_ckpt(before)
