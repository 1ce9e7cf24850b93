"""Which number format trains a network fastest here: known of a GPU, measured once on a processor that has both."""

import json
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from smn_cli.atomic import write_atomically
from smn_cli.backbones.folding import Folded, fold, unfolded
from smn_cli.cache_folder import cache_folder
from smn_cli.evaluation.precision import autocasting, fast_precision, has_bf16
from smn_cli.features.cache_key import machine_key
from smn_cli.masking.backbone import run_backbone
from smn_cli.recipes import Precision
from smn_cli.recognise import read_json
from smn_cli.seeding import fixed_generator

BATCH_SIZE = 8
NUM_ROUNDS, MOST_ROUNDS, ENOUGH_S = 3, 12, 2.0
"""Passes in each format at least and at most, and the seconds after which no more are added: a quick network takes more
of them, so that a short busy moment is not remembered for ever."""
LEAST_S = 0.06
"""Seconds of a pass in fp32; of a quicker one a run is short whatever it computes in, and a measurement noise."""
LEAST_GAIN = 1.2
"""Times faster that bf16 has to be: whoever asks for nothing gets fp32 unless there is something to it."""


class Choice(NamedTuple):
    """A number format, and in words why; empty where nothing was measured."""

    precision: Precision
    reason: str


def choose_precision(
    model: nn.Module, size: int, names: Sequence[str], *, tell: Callable[[str], None] | None = None
) -> Choice:
    """fp32 or bf16, by a few forward and backward passes of random images where the processor has bf16.

    On some processors ConvNets train twice as fast in it, on others slower (docs/log.md), and no flag tells which. What
    was measured is remembered in the user's cache: two runs of one seed are equal on one machine. In inference
    mode, which has no backward pass, nothing is measured.

    Args:
        model: the backbone, on its device; left as it was.
        size: of the images, in pixels.
        names: of the parameters that are trained.
        tell: what begins, before anything is measured.
    """
    device = next(model.parameters()).device
    if device.type != "cpu" or not has_bf16(device) or torch.is_inference_mode_enabled():
        return Choice(fast_precision(device), "")
    about = {"network": type(model).__name__, "size": size, "trained": list(names), "folded": True}
    about["weights"] = sum(parameter.numel() for parameter in model.parameters())
    key = machine_key(about, device)
    memory = None if key is None else cache_folder() / "precision" / f"{key}.json"
    known = _remembered(memory)
    if known is None:
        if tell is not None:
            tell("which precision trains faster here?")
        with torch.enable_grad():  # whoever calls may have it off
            known = _measured(model, size, names)
        _remember(memory, known)
    return known


def _measured(model: nn.Module, size: int, names: Sequence[str]) -> Choice:
    images = torch.rand(BATCH_SIZE, 3, size, size, generator=fixed_generator())
    images = images.contiguous(memory_format=torch.channels_last)
    weights = {name: model.get_parameter(name).detach().clone().requires_grad_() for name in names}
    folded = fold(model, size)
    network = folded if folded.takes(names) else unfolded(model)
    took: dict[Precision, list[float]] = {"fp32": [], "bf16": []}
    _pass_s(network, weights, images, "fp32")  # warms up
    for number in range(MOST_ROUNDS):
        if number >= NUM_ROUNDS and sum(map(sum, took.values())) > ENOUGH_S:
            break
        for precision, seconds in took.items():
            seconds.append(_pass_s(network, weights, images, precision))
            if min(took["fp32"]) < LEAST_S:
                return Choice("fp32", "")
    gain = min(took["fp32"]) / min(took["bf16"])
    return Choice("bf16" if gain >= LEAST_GAIN else "fp32", f"measured here: bf16 is {gain:.1f} times as fast as fp32")


def _pass_s(network: Folded, weights: dict[str, Tensor], images: Tensor, precision: Precision) -> float:
    started = time.perf_counter()
    with autocasting(precision, images.device):
        features = run_backbone(network.network, images, network.carried(weights))
    torch.autograd.grad(features.float().sum(), list(weights.values()), allow_unused=True)
    return time.perf_counter() - started


def _remembered(path: Path | None) -> Choice | None:
    if path is None:
        return None
    try:
        found = read_json(path)
        known = Choice(found["precision"], str(found["reason"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return known if known.precision in ("fp32", "bf16") else None


def _remember(path: Path | None, choice: Choice) -> None:
    if path is None:
        return
    with suppress(OSError):  # a cache that cannot be written is none
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_atomically(path, json.dumps(choice._asdict()).encode())
