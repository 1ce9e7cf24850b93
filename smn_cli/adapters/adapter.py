"""An adapter in memory: bits over a known base, put onto a network and taken off again."""

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from smn_cli.adapters.codecs import encode_smallest, get_codec, pack_bits, unpack_bits
from smn_cli.adapters.file import AdapterContent, parse_adapter, read_adapter
from smn_cli.adapters.fingerprint import Fingerprint, check_base, fingerprint_of, tensor_digest, tensor_digests
from smn_cli.adapters.head import StoredHead
from smn_cli.adapters.partial import rebuild_part
from smn_cli.adapters.placing import Placement, find_placement
from smn_cli.adapters.readout import StoredReadout
from smn_cli.adapters.schema import HeadEntry, Header, MaskEntry
from smn_cli.adapters.statistics import round_statistics, upper_halves
from smn_cli.adapters.stored import StoredAdapter
from smn_cli.adapters.swap import digest_on, original_state, swap_back, swap_in, swapped_in
from smn_cli.errors import AdapterFileError, SmnError
from smn_cli.masking.binarize import count_kept, effective_weight
from smn_cli.masking.ties import check_tied_alike


class Known(NamedTuple):
    """Of the one base that fits, once it was there: the mask over it, found to be right, and its tensors' digests."""

    bits: bytes
    digests: Mapping[str, bytes]


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
        self._known: Known | None = None

    def with_readout(self, readout: StoredReadout | None) -> "Adapter":
        """The same adapter with a readout in place of its own, or, with None, without one; the network is the same."""
        return self._with(replace(self.header, readout=None if readout is None else readout.entry), readout)

    def described(self, *, licence: str | None = None, description: str | None = None) -> "Adapter":
        """The same adapter with a licence, a description or both in its header, see `Header.described`."""
        return self._with(self.header.described(licence=licence, description=description), self.readout)

    def _with(self, header: Header, readout: StoredReadout | None) -> "Adapter":
        old = self._content
        made = Adapter(AdapterContent(header, old.base_rows, old.payload, old.norm_stats, old.head, readout))
        made._known = self._known
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
        if self._known is None:
            self.rebuild(base)
        return unpack_bits(self._known.bits if self._known else b"", self.header.num_weights)

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
        names = self.changed_names
        digests = check_base(base, self.base_fingerprint, made_for=self.made_for, names=names)
        state = dict(base)
        known = self.known_masks()
        masks = self.masks(base) if known is None else known
        for name, mask in masks.items():
            state[name] = effective_weight(base[name].detach(), mask.to(base[name].device))
        state.update(self.statistics_over(base))
        check_tied_alike(base, state, names)
        if known is not None:  # the same bits over the same base were found right before
            return state
        unchanged = {name: digest for name, digest in digests.items() if name not in names}
        adapted = tensor_digests({name: state[name] for name in digests}, known=unchanged)
        if fingerprint_of(adapted).digest != self.header.adapted_digest:
            raise AdapterFileError("the rebuilt network is not the recorded one: the adapter was altered when made")
        bits = pack_bits(np.concatenate([mask.numpy().reshape(-1) for mask in masks.values()]))
        self._known = Known(bits, digests)
        return state

    @property
    def known_digests(self) -> Mapping[str, bytes]:
        """Of the base's tensors by name; empty until it was there as a whole."""
        return {} if self._known is None else self._known.digests

    def known_masks(self) -> dict[str, Tensor] | None:
        """As `masks`, without a base; None until it was there as a whole."""
        if self._known is None:
            return None
        return _tensors(self._split(unpack_bits(self._known.bits, self.header.num_weights)))

    def masks_alone(self) -> dict[str, Tensor]:
        """As `masks`, of a codec that needs no base; it is for the caller to bound what the header's shapes allocate.

        Raises:
            AdapterFileError: the payload does not decode to the recorded counts.
        """
        return _tensors(self.mask_arrays({}))

    def placed_in(self, model: nn.Module) -> Placement:
        """Where a network has what the adapter changes, and what of it the network lacks; values are not compared.

        Raises:
            MismatchError: several networks inside could be meant.
        """
        return find_placement(original_state(model), self.base_fingerprint, self.changed_names)

    def apply(self, model: nn.Module, base: nn.Module | Mapping[str, Tensor] | None = None) -> nn.Module:
        """Turn a pretrained network into the adapted one, in place; a previous adapter is taken off first.

        Parameter objects, modes, devices and hooks stay; what was there before travels with the network through
        `copy.deepcopy`, pickling and `torch.save`. A carried classifier is put in, too, where the network has one of
        its shape (timm's `num_classes`). A network inside `torch.compile` or `DataParallel` is found, and so is one
        below a name of its own, such as `backbone` of a detector or `timm_model` of transformers' wrapper.

        Of a network that lacks a part of the base, as timm's `features_only` does, what is there is adapted; see
        `placed_in`. Each tensor is then compared with its digest if the whole base was seen, here or before, else with
        the first byte of it, which is all that the file has.

        Args:
            model: of timm, or with one inside.
            base: a network, or the state dict, of the whole base. It is needed where `model` lacks masked tensors
                that the codec wants to see and the adapter was made over a file; else timm's weights are loaded.

        Returns:
            The same object.

        Raises:
            MismatchError, AdapterFileError: as in `rebuild`, or a part of the base is there with other values; the
                network is then as it was before any adapter.

        Warns:
            LeftOutWarning: the network lacks tensors that the adapter changes.
        """
        try:
            tensors = self.tensors_for(model, base)
        except SmnError:
            self.remove(model)
            raise
        swap_in(model, tensors, digest=self.header.adapted_digest)
        return model

    @contextmanager
    def applied(self, model: nn.Module, base: nn.Module | Mapping[str, Tensor] | None = None) -> Iterator[nn.Module]:
        """`apply` for the length of a `with` block; then the network is as it was before it.

        An adapter that was on is on again afterwards, also if the block fails; so blocks may be nested.

        Raises:
            MismatchError, AdapterFileError: as in `apply`; nothing has changed then.
        """
        with swapped_in(model, self.tensors_for(model, base), digest=self.header.adapted_digest):
            yield model

    def is_on(self, model: nn.Module) -> bool:
        """Whether a network is the adapted one now, by `apply` or `applied`."""
        return digest_on(model) == self.header.adapted_digest

    @property
    def changed_names(self) -> list[str]:
        """Names in the base of masked tensors and carried statistics."""
        return [entry.name for entry in self.header.masks] + [name for name, _ in self.header.norm_stats]

    def tensors_for(self, model: nn.Module, base: nn.Module | Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """What `apply` puts on a network, by the names there; the arguments and errors are those of `apply`."""
        state = original_state(model)
        place = find_placement(state, self.base_fingerprint, self.changed_names)
        if base is not None:
            self.rebuild(original_state(base) if isinstance(base, nn.Module) else base)
        if not place.names:
            self.rebuild(state)  # says what is missing
        part = place.take(state)
        rebuilt = self.rebuild(part) if place.is_whole else rebuild_part(self, part, place)
        changed = {place.names[name]: rebuilt[name] for name in self.changed_names if name in rebuilt}
        return changed | self._fitting_head(state, place.prefix)

    def _fitting_head(self, state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
        tensors = {} if self.head is None else {prefix + name: each for name, each in self.head.tensors().items()}
        fits = all(name in state and state[name].shape == tensor.shape for name, tensor in tensors.items())
        return tensors if fits else {}

    def remove(self, model: nn.Module) -> nn.Module:
        """Bring a network back to its base, bit for bit, whichever adapter is on it; see `remove_adapter`."""
        return remove_adapter(model)


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
    """Read an adapter file, by path or as `hf://USER/NAME[/FILE][@REVISION]` from the Hugging Face hub.

    Raises:
        AdapterFileError: missing, truncated, altered, or not an adapter.
        HubError: it cannot be fetched.
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
    halves = [np.zeros(0, dtype=np.uint16), *map(upper_halves, statistics.values())]
    return Adapter(AdapterContent(header, base_fingerprint.rows, payload, np.concatenate(halves), head))


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
