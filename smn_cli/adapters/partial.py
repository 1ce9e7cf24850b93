"""The adapted tensors of a network that has a part of the base only."""

import contextlib
import os
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from smn_cli.adapters.codecs import CODECS
from smn_cli.adapters.fingerprint import check_base, tensor_digests
from smn_cli.adapters.placing import Placement
from smn_cli.errors import BackboneError, LeftOutWarning, MismatchError
from smn_cli.masking.binarize import effective_weight
from smn_cli.masking.ties import check_tied_alike

if TYPE_CHECKING:
    from smn_cli.adapters.adapter import Adapter

_MAX_ABSENT = 64
"""Masked weights in all for each that is there; a header that promises more is not believed without its base."""
_NOT_THE_CALLER = (str(Path(__file__).parents[1]) + os.sep, contextlib.__file__)


def rebuild_part(adapter: "Adapter", part: Mapping[str, Tensor], place: Placement) -> dict[str, Tensor]:
    """As `Adapter.rebuild`, of what there is of the base.

    Args:
        adapter: whose base it is.
        part: tensors by their names in the base; one of them at least is masked.
        place: where they are.

    Raises:
        MismatchError: what is there is not the base's, or the whole base is needed and cannot be had.
        AdapterFileError: the payload does not decode to the recorded counts, or tells tied tensors apart.
    """
    digests = tensor_digests(part)
    _refuse(adapter, part, adapter.base_fingerprint.differing(digests))
    if _needs_whole_base(adapter, part):
        adapter.rebuild(_recorded_base(adapter))
    if known := adapter.known_digests:  # all of each digest, where the file has a byte of it
        _refuse(adapter, part, [name for name, digest in digests.items() if known[name] != digest])
    if place.left_out:
        warnings.warn(place.in_words(), LeftOutWarning, stacklevel=_callers_level())
    state = dict(part)
    for name, mask in _masks(adapter, part).items():
        if name in part:
            state[name] = effective_weight(part[name].detach(), mask.to(part[name].device))
    state.update(adapter.statistics_over(part, partly=True))
    check_tied_alike(part, state, [name for name in adapter.changed_names if name in part])
    return state


def _refuse(adapter: "Adapter", part: Mapping[str, Tensor], differing: list[str]) -> None:
    """Raise where tensors differ: with most of them, the network is another one."""
    if 2 * len(differing) > len(part):
        check_base(part, adapter.base_fingerprint, made_for=adapter.made_for, names=adapter.changed_names)
    if differing:
        raise MismatchError(
            f"the adapter was made for other weights of {adapter.made_for}: of {len(part)} tensors of it that the "
            f"network has {len(differing)} differ, first {differing[0]} {tuple(part[differing[0]].shape)}; put it on "
            "before anything is trained, and at the size that the network was made for"
        )


def _callers_level() -> int:
    """The `stacklevel` of the user's own line, however many functions of ours and `with` blocks lie between."""
    frame, level = sys._getframe(1), 1
    while frame.f_back and frame.f_code.co_filename.startswith(_NOT_THE_CALLER):
        frame, level = frame.f_back, level + 1
    return level


def _masks(adapter: "Adapter", part: Mapping[str, Tensor]) -> dict[str, Tensor]:
    known = adapter.known_masks()
    if known is not None:
        return known
    return adapter.masks(part) if _has_all(adapter, part) else adapter.masks_alone()


def _has_all(adapter: "Adapter", part: Mapping[str, Tensor]) -> bool:
    return all(entry.name in part for entry in adapter.header.masks)


def _needs_whole_base(adapter: "Adapter", part: Mapping[str, Tensor]) -> bool:
    if adapter.known_digests:
        return False
    codec = CODECS.get(adapter.header.codec)
    if codec is None or _has_all(adapter, part):  # an expert's codec decodes over its dispatcher's whole base
        return codec is None
    there = sum(tensor.numel() for tensor in part.values())
    return codec.needs_base or adapter.header.num_weights > _MAX_ABSENT * there


def _recorded_base(adapter: "Adapter") -> Mapping[str, Tensor]:
    """timm's weights that the adapter was made over."""
    from smn_cli.backbones.loading import load_backbone

    reason = "and it was made over a file"
    if adapter.header.tag:
        try:
            return load_backbone(adapter.made_for, is_run=False).model.state_dict()
        except BackboneError as error:
            reason = f"and {str(error).partition(':')[0]}"
    raise MismatchError(
        "the network lacks masked tensors, without which the adapter's codec, "
        f"{adapter.header.codec}, cannot be decoded, {reason}: give the whole network, with the weights of "
        f"{adapter.made_for} that it was made over, as `base`, or pack with smn pack --codec lzma"
    )
