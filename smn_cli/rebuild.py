"""An adapter's base, and the adapted network over it as a plain checkpoint."""

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from smn_cli.adapters.adapter import Adapter
from smn_cli.adapters.fingerprint import fingerprint, select_base
from smn_cli.adapters.stored import StoredAdapter
from smn_cli.atomic import atomic_path
from smn_cli.backbones.loading import Backbone, load_backbone, load_with_timm
from smn_cli.backbones.weight_files import read_weight_file
from smn_cli.errors import BackboneError, MismatchError, UsageError
from smn_cli.features.readout import check_readout
from smn_cli.file_rebuild import RebuiltNetwork
from smn_cli.seeding import fixed_generator


def rebuild(adapter: Adapter, backbone: Backbone, *, with_classifier: bool = True) -> RebuiltNetwork[Tensor]:
    """The adapted network over its base, checked against the recorded digests.

    Raises:
        MismatchError, AdapterFileError: as in `Adapter.rebuild`.
    """
    state = adapter.rebuild(backbone.model.state_dict())
    head = adapter.head if with_classifier else None
    classifier = {} if not with_classifier else backbone.classifier if head is None else head.tensors()
    return RebuiltNetwork(
        {**state, **classifier},
        _num_classes(classifier),
        backbone.takes_any_size,
        () if head is None else head.classes,
    )


def rebuild_with_readout(adapter: Adapter, backbone: Backbone) -> RebuiltNetwork[Tensor]:
    """The adapted network with the adapter's readout as the last linear layer, in the place of any classifier.

    Raises:
        MismatchError, AdapterFileError: as in `Adapter.rebuild`, or the readout is not of this network's features.
        UsageError: there is no readout, it is no layer over the last features, or the network has no place for one.
    """
    readout, name = adapter.readout, backbone.classifier_name
    if readout is None:
        raise UsageError("`readout`: the adapter carries none; make it with smn pack and `readout` centred or whitened")
    if readout.reads_stages:
        raise UsageError(
            "`readout`: the adapter's reads the stages, and is no layer over the last features; use smn embed, or pack "
            "it with `readout` whitened"
        )
    if not name:
        raise UsageError(
            f"`readout`: the classifier of {backbone.arch} is not one linear layer that a readout could replace; use "
            "smn embed"
        )
    check_readout(readout, backbone)
    state = adapter.rebuild(backbone.model.state_dict())
    weight, bias = readout.layer()
    layer = {f"{name}.weight": weight, f"{name}.bias": bias}
    return RebuiltNetwork({**state, **layer}, readout.dim, backbone.takes_any_size, readout=readout.kind)


def _num_classes(classifier: dict[str, Tensor]) -> int:
    """Rows of the last matrix: a classifier may begin with a normalisation layer, as LeViT's does."""
    return next((len(tensor) for tensor in reversed(classifier.values()) if tensor.dim() > 1), 0)


def save_checkpoint(network: RebuiltNetwork[Tensor], path: Path) -> None:
    """Write a state dict as safetensors, atomically; class names stand in its metadata, as JSON.

    Raises:
        OSError: the folder is missing or not writable, or the disk is full.
    """
    with atomic_path(path) as temporary:
        save_file(_apart(network.state), temporary, metadata=network.metadata())


def _apart(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors on the CPU, copied where they share memory: safetensors takes none that do."""
    apart: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in state.items():
        plain = tensor.detach().cpu().contiguous()
        memory = plain.untyped_storage()
        if memory.data_ptr() in seen or memory.nbytes() != plain.numel() * plain.element_size():
            plain = plain.clone()
        seen.add(memory.data_ptr())
        apart[name] = plain
    return apart


def check_rebuilt_outputs(live: nn.Module, arch: str, checkpoint: Path, num_classes: int, *, size: int = 64) -> bool:
    """Whether plain timm, loading a checkpoint, computes the same bits as a live adapted network.

    Args:
        live: adapted backbone without classifier, on the CPU.
        arch, checkpoint, num_classes: what timm is given.
        size: of the random images that both see.
    """
    loaded = load_with_timm(arch, checkpoint, num_classes)
    images = torch.rand(4, 3, size, size, generator=fixed_generator())
    with torch.inference_mode():
        return torch.equal(live.eval()(images), loaded(images))


def check_checkpoint(adapter: StoredAdapter, path: Path) -> None:
    """Hold a checkpoint of `save_checkpoint` against the digest an adapter recorded.

    Raises:
        MismatchError: it is another network.
        FileError, DataError: it cannot be read.
    """
    tensors = read_weight_file(path, wanted=[entry.name for entry in adapter.header.masks]).tensors
    found = fingerprint(select_base(tensors, adapter.base_fingerprint)).digest
    if found != adapter.header.adapted_digest:
        raise MismatchError(
            f"`checkpoint` {path} is not the adapted network: digest {found[:12]}... instead of "
            f"{adapter.header.adapted_digest[:12]}...; rebuild it with smn apply"
        )


def backbone_for(adapter: StoredAdapter, weights: str | Path | None, *, is_run: bool = True) -> Backbone:
    """The base an adapter asks for, from a file or from timm's hub.

    Args:
        adapter: says which.
        weights: a file; None for timm's hub.
        is_run: whether the network is to be run, see `load_backbone`.

    Raises:
        BackboneError: the weights cannot be had or do not fit.
    """
    if weights is None and not adapter.header.tag:
        raise BackboneError(
            f"the adapter was made over weights of {adapter.header.arch} from a file, not from timm's hub: "
            "give that file with `weights`"
        )
    return load_backbone(adapter.made_for if weights is None else adapter.header.arch, weights, is_run=is_run)
