"""An adapter in memory: bits over a known base, put onto a network and taken off again."""

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from smn_cli.adapters.codecs import encode_smallest, get_codec, pack_bits, unpack_bits
from smn_cli.adapters.file import AdapterContent, parse_adapter, read_adapter
from smn_cli.adapters.fingerprint import Fingerprint, check_base, fingerprint_of, tensor_digest, tensor_digests
from smn_cli.adapters.head import StoredHead
from smn_cli.adapters.readout import StoredReadout
from smn_cli.adapters.schema import HeadEntry, Header, MaskEntry
from smn_cli.adapters.statistics import round_statistics, upper_halves
from smn_cli.adapters.stored import StoredAdapter
from smn_cli.adapters.swap import digest_on, original_state, swap_back, swap_in, swapped_in
from smn_cli.errors import AdapterFileError, MismatchError, SmnError
from smn_cli.masking.binarize import count_kept, effective_weight
from smn_cli.masking.ties import check_tied_alike


class Adapter(StoredAdapter):
    """A mask, and statistics if they were adapted, for one exact base.

    Get one from `load_adapter` or `make_adapter`. It holds the file's compressed payload and, once it was rebuilt, one
    bit a weight, not the unpacked mask, so that many adapters can stay in memory and be switched quickly. It is never
    changed, so threads may share it, each over its own network.

        adapter = smn_cli.load_adapter("adapter.safetensors")
        with adapter.applied(model):
            features = model(torch.stack([adapter.transform()(image) for image in images]))
    """

    def __init__(self, content: AdapterContent) -> None:
        super().__init__(content)
        self._known_bits: bytes | None = None  # decoded over the one base that fits, and found to be right

    def with_readout(self, readout: StoredReadout | None) -> "Adapter":
        """The same adapter with a readout in place of its own, or, with None, without one; the network is the same."""
        old = self._content
        header = replace(old.header, readout=None if readout is None else readout.entry)
        made = Adapter(AdapterContent(header, old.base_rows, old.payload, old.norm_stats, old.head, readout))
        made._known_bits = self._known_bits
        return made

    def masks(self, base: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Bool masks by parameter name.

        Args:
            base: state dict whose shapes must be the recorded ones; they bound what is decoded.

        Raises:
            MismatchError: a masked tensor is missing or has another shape.
            AdapterFileError: the payload does not decode to the recorded counts.
        """
        self.check_shapes(base)
        names = [entry.name for entry in self.header.masks] if self.header.needs_base else []
        return _tensors(self.mask_arrays(dict(zip(names, _arrays(base, names), strict=True))))

    def bits(self, base: Mapping[str, Tensor]) -> np.ndarray:
        """All masks as one stream (num_weights,) of bools, in the order of the header; decoded once and remembered.

        Raises:
            MismatchError, AdapterFileError: as in `rebuild`.
        """
        if self._known_bits is None:
            self.rebuild(base)
        return unpack_bits(self._known_bits or b"", self.header.num_weights)

    def rebuild(self, base: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """State dict of the adapted network over a base, checked before and after.

        Args:
            base: state dict of the pretrained network on any device; what the recorded base does not have (a
                classifier, counters) is passed through.

        Returns:
            The same names; masked tensors and carried statistics are new, the others shared with `base`.

        Raises:
            MismatchError: this is not the base it was made for.
            AdapterFileError: the result is not what was recorded when the adapter was made, or masks two names of one
                tensor apart.
        """
        names = [entry.name for entry in self.header.masks] + [name for name, _ in self.header.norm_stats]
        digests = check_base(base, self.base_fingerprint, made_for=self.made_for, names=names)
        state = dict(base)
        known = self._known_bits
        masks = (
            self.masks(base) if known is None else _tensors(self._split(unpack_bits(known, self.header.num_weights)))
        )
        for name, mask in masks.items():
            state[name] = effective_weight(base[name].detach(), mask.to(base[name].device))
        state.update(self._statistics(base))
        check_tied_alike(base, state, names)
        if known is not None:  # the same bits over the same base were found right before
            return state
        unchanged = {name: digest for name, digest in digests.items() if name not in names}
        adapted = tensor_digests({name: state[name] for name in digests}, known=unchanged)
        if fingerprint_of(adapted).digest != self.header.adapted_digest:
            raise AdapterFileError("the rebuilt network is not the recorded one: the adapter was altered when made")
        self._known_bits = pack_bits(np.concatenate([mask.numpy().reshape(-1) for mask in masks.values()]))
        return state

    def apply(self, model: nn.Module) -> nn.Module:
        """Turn a pretrained network into the adapted one, in place; a previous adapter is taken off first.

        Parameter objects, modes, devices and hooks stay; what was there before travels with the network through
        `copy.deepcopy`, pickling and `torch.save`. A carried classifier is put in, too, where the network has one of
        its shape (timm's `num_classes`). A network inside `torch.compile` or `DataParallel` is found.

        Returns:
            The same object.

        Raises:
            MismatchError, AdapterFileError: as in `rebuild`; the network is then as it was before any adapter.
        """
        try:
            tensors = self._adapted_tensors(model)
        except SmnError:
            self.remove(model)
            raise
        swap_in(model, tensors, digest=self.header.adapted_digest)
        return model

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[nn.Module]:
        """`apply` for the length of a `with` block; then the network is as it was before it.

        An adapter that was on is on again afterwards, also if the block fails; so blocks may be nested.

        Raises:
            MismatchError, AdapterFileError: as in `rebuild`; nothing has changed then.
        """
        with swapped_in(model, self._adapted_tensors(model), digest=self.header.adapted_digest):
            yield model

    def is_on(self, model: nn.Module) -> bool:
        """Whether a network is the adapted one now, by `apply` or `applied`."""
        return digest_on(model) == self.header.adapted_digest

    def _adapted_tensors(self, model: nn.Module) -> dict[str, Tensor]:
        base = original_state(model)
        rebuilt = self.rebuild(base)
        changed = [entry.name for entry in self.header.masks] + [name for name, _ in self.header.norm_stats]
        return {name: rebuilt[name] for name in changed} | self._fitting_head(base)

    def _fitting_head(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        tensors = {} if self.head is None else self.head.tensors()
        fits = all(name in state and state[name].shape == tensor.shape for name, tensor in tensors.items())
        return tensors if fits else {}

    def remove(self, model: nn.Module) -> nn.Module:
        """Bring a network back to its base, bit for bit, whichever adapter is on it; see `remove_adapter`."""
        return remove_adapter(model)

    def _statistics(self, base: Mapping[str, Tensor]) -> dict[str, Tensor]:
        statistics: dict[str, Tensor] = {}
        for name, values in self.statistics().items():
            if name not in base or base[name].numel() != len(values):
                raise MismatchError(f"statistics {name} of {len(values)} values do not fit the base")
            statistics[name] = values.view(base[name].shape).to(base[name])
        return statistics


def remove_adapter(model: nn.Module) -> nn.Module:
    """Bring a network, or a copy of one, back to its base, bit for bit; nothing happens if no adapter is on it.

    Networks inside it, such as the backbone of a detector, are brought back, too. After `model.half()` the masked
    tensors become what halving the base gives; after `model.half().float()` they are exact, though others are rounded.

    Returns:
        The same object.
    """
    swap_back(model)
    return model


def load_adapter(path: str | Path) -> Adapter:
    """Read an adapter file.

    Raises:
        AdapterFileError: missing, truncated, altered, or not an adapter.
    """
    return Adapter(read_adapter(path))


def adapter_from_bytes(data: bytes, *, source: str = "the data") -> Adapter:
    """Adapter of a file's bytes; see `load_adapter`."""
    return Adapter(parse_adapter(data, source=source))


def make_adapter(
    base: Mapping[str, Tensor],
    masks: Mapping[str, Tensor],
    *,
    arch: str,
    tag: str = "",
    norm_stats: Mapping[str, Tensor] | None = None,
    preprocessing: Mapping[str, Any] | None = None,
    provenance: dict[str, Any] | None = None,
    codec: str = "auto",
    head: StoredHead | None = None,
) -> Adapter:
    """Adapter of masks over a base.

    Args:
        base: the backbone's state dict, without a classifier.
        masks: bool tensors by parameter name, each of its parameter's shape and with at least one weight kept.
        arch, tag: of the base, for people and for `smn apply`.
        norm_stats: running statistics to carry, by name; what `round_statistics` makes of them is carried.
        preprocessing, provenance: plain values for the header.
        codec: a codec's name, or "auto" for the smallest.
        head: classifier to carry.

    Raises:
        UsageError: unknown codec.
        ValueError: a mask is empty, or a statistic is not a finite number.
    """
    names = sorted(masks)
    bits = np.concatenate([masks[name].detach().cpu().numpy().reshape(-1) for name in names])
    needs_base = codec == "auto" or get_codec(codec).needs_base
    statistics = {name: round_statistics(tensor.detach().cpu()) for name, tensor in sorted((norm_stats or {}).items())}
    if not all(bool(tensor.isfinite().all()) for tensor in statistics.values()):
        raise ValueError("normalisation statistics are not all finite numbers")
    with ThreadPoolExecutor(1) as beside:  # hashing lets go of the interpreter
        fingerprints = beside.submit(_fingerprints, base, masks, statistics)
        chosen, payload = encode_smallest(bits, _arrays(base, names) if needs_base else [], codec)
        base_fingerprint, adapted_fingerprint = fingerprints.result()
    header = Header(
        arch=arch,
        tag=tag,
        base_digest=base_fingerprint.digest,
        adapted_digest=adapted_fingerprint.digest,
        codec=chosen.name,
        needs_base=chosen.needs_base,
        masks=tuple(MaskEntry(name, tuple(masks[name].shape), count_kept(masks[name])) for name in names),
        norm_stats=tuple((name, tensor.numel()) for name, tensor in statistics.items()),
        preprocessing=dict(preprocessing or {}),
        provenance=provenance or {},
        head=None if head is None else HeadEntry(head.name, head.levels.shape[1], head.classes),
    )
    halves = [upper_halves(tensor) for tensor in statistics.values()]
    values = np.concatenate(halves) if halves else np.zeros(0, dtype=np.uint16)
    return Adapter(AdapterContent(header, base_fingerprint.rows, payload, values, head))


def _fingerprints(
    base: Mapping[str, Tensor], masks: Mapping[str, Tensor], statistics: Mapping[str, Tensor]
) -> tuple[Fingerprint, Fingerprint]:
    """Of a base, and of the network that masks and statistics make of it."""
    digests = tensor_digests(base)
    adapted = dict(digests) | tensor_digests(statistics)
    for name, mask in masks.items():  # one by one, so that their memory is used again
        adapted[name] = tensor_digest(name, effective_weight(base[name].detach(), mask.to(base[name].device)))
    return fingerprint_of(digests), fingerprint_of(adapted)


def _tensors(masks: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(mask) for name, mask in masks.items()}


def _arrays(base: Mapping[str, Tensor], names: list[str]) -> list[np.ndarray]:
    return [base[name].detach().to("cpu", torch.float32).numpy() for name in names]
