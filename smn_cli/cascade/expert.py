"""An expert: an adapter that is coded against the dispatcher's (docs/format.md, "The cascade file").

Its mask is the dispatcher's but for weights that it cuts among those which the dispatcher keeps, and weights that it
takes back among the cut ones. The two kinds are told apart because a weight that the dispatcher has cut is far more
likely to change; each is coded like a mask is, by magnitude, row and column.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from smn_cli.adapters.adapter import Adapter, make_adapter
from smn_cli.adapters.codecs import pack_xz, unpack_xz
from smn_cli.adapters.context import decode_cuts, encode_cuts
from smn_cli.adapters.file import AdapterContent
from smn_cli.adapters.readout import StoredReadout
from smn_cli.adapters.schema import Header, MaskEntry
from smn_cli.cascade.schema import ExpertEntry
from smn_cli.errors import AdapterFileError, MismatchError, UsageError

CODEC = "flips"


class Expert(Adapter):
    """An adapter over the same base as its dispatcher, stored as what differs from it.

    It rebuilds, applies and refuses like any adapter. It has no file of its own: `plain` makes one.

    Args:
        dispatcher: what it is coded against.
        entry: what the cascade's header says of it.
        payload: its bytes in the file: cuts, returns, statistics.
    """

    def __init__(self, dispatcher: Adapter, entry: ExpertEntry, payload: bytes) -> None:
        num_cuts, num_returns, _ = entry.num_bytes
        if len(payload) != sum(entry.num_bytes):
            raise AdapterFileError(f"an expert has {len(payload)} bytes: expected {sum(entry.num_bytes)}")
        self._dispatcher = dispatcher
        self._parts = payload[:num_cuts], payload[num_cuts : num_cuts + num_returns]
        self._coded_statistics = payload[num_cuts + num_returns :]
        self.entry = entry
        statistics = _statistics_in(dispatcher, self._coded_statistics)
        header = _header(dispatcher.header, entry)
        super().__init__(AdapterContent(header, dispatcher.base_fingerprint.rows, b"".join(self._parts), statistics))

    @property
    def norm_stats_bytes(self) -> int:
        """Size of the carried statistics in the cascade file."""
        return len(self._coded_statistics)

    @property
    def coded(self) -> bytes:
        """Its bytes in the cascade file."""
        return b"".join(self._parts) + self._coded_statistics

    @property
    def size_bytes(self) -> int:
        """Size of these."""
        return len(self.coded)

    def masks(self, base: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Bool masks by parameter name.

        Raises:
            MismatchError: this is not the base.
            AdapterFileError: the payload does not decode to the recorded counts.
        """
        kept = self._dispatcher.bits(base)
        arrays = _arrays(base, self.header)
        cuts, returns = (
            decode_cuts(payload, len(kept), arrays, among) if payload else np.zeros(len(kept), dtype=np.bool_)
            for payload, among in zip(self._parts, (kept, ~kept), strict=True)
        )
        return {name: torch.from_numpy(mask) for name, mask in self._split(kept ^ cuts ^ returns).items()}

    def to_bytes(self) -> bytes:
        """Refused: an expert is part of a cascade file.

        Raises:
            UsageError: always.
        """
        raise UsageError("an expert has no file of its own: save the cascade, or what plain() makes of the expert")

    def with_readout(self, readout: StoredReadout | None) -> Adapter:
        """Refused, as `to_bytes`.

        Raises:
            UsageError: always.
        """
        raise UsageError("an expert has no file of its own: give a readout to what plain() makes of it")

    def described(self, *, licence: str | None = None, description: str | None = None) -> Adapter:
        """Refused, as `to_bytes`.

        Raises:
            UsageError: always.
        """
        raise UsageError("an expert has no file of its own: describe what plain() makes of it")

    def plain(self, base: Mapping[str, Tensor], *, codec: str = "auto") -> Adapter:
        """The same network as an adapter that stands alone.

        Raises:
            MismatchError, AdapterFileError: as in `Adapter.rebuild`.
        """
        self.rebuild(base)
        header = self.header
        return make_adapter(
            {name: tensor for name, tensor in base.items() if self.base_fingerprint.has(name)},
            self.masks(base),
            arch=header.arch,
            tag=header.tag,
            norm_stats=self.statistics(),
            preprocessing=header.preprocessing,
            provenance={**self._dispatcher.header.provenance, **header.provenance},
            codec=codec,
        )


def make_expert(base: Mapping[str, Tensor], dispatcher: Adapter, adapter: Adapter, *, called: str) -> Expert:
    """Code an adapter against a dispatcher.

    Args:
        base: state dict of the base of both.
        dispatcher, adapter: over the same base, with the same masked tensors, statistics and preprocessing.
        called: what to call the adapter in a message.

    Raises:
        MismatchError: they are not alike in that.
        AdapterFileError: one of them does not rebuild.
    """
    _check_alike(dispatcher.header, adapter.header, called)
    kept, wanted = dispatcher.bits(base), adapter.bits(base)
    arrays = _arrays(base, dispatcher.header)
    cuts, returns = kept & ~wanted, ~kept & wanted
    parts = (
        encode_cuts(cuts, arrays, kept) if cuts.any() else b"",
        encode_cuts(returns, arrays, ~kept) if returns.any() else b"",
        _coded_statistics(dispatcher, adapter),
    )
    entry = ExpertEntry(
        adapted_digest=adapter.header.adapted_digest,
        num_kept=tuple(entry.num_kept for entry in adapter.header.masks),
        num_bytes=(len(parts[0]), len(parts[1]), len(parts[2])),
        provenance=_differing(dispatcher.header.provenance, adapter.header.provenance),
    )
    return Expert(dispatcher, entry, b"".join(parts))


def _header(header: Header, entry: ExpertEntry) -> Header:
    if len(entry.num_kept) != len(header.masks):
        raise AdapterFileError(
            f"an expert has {len(entry.num_kept)} masks where its dispatcher has {len(header.masks)}"
        )
    masks = tuple(MaskEntry(m.name, m.shape, kept) for m, kept in zip(header.masks, entry.num_kept, strict=True))
    for mask in masks:
        if not 0 < mask.num_kept <= mask.num_weights:
            raise AdapterFileError(f"an expert keeps {mask.num_kept} of {mask.num_weights} weights of {mask.name}")
    return replace(
        header,
        adapted_digest=entry.adapted_digest,
        codec=CODEC,
        needs_base=True,
        masks=masks,
        provenance=entry.provenance,
        readout=None,
    )


def _check_alike(dispatcher: Header, adapter: Header, called: str) -> None:
    if adapter.base_digest != dispatcher.base_digest:
        raise MismatchError(
            f"{called} is for another base than the dispatcher: {adapter.base_digest[:12]}... instead of "
            f"{dispatcher.base_digest[:12]}...; train it over the same weights"
        )
    if [(m.name, m.shape) for m in adapter.masks] != [(m.name, m.shape) for m in dispatcher.masks]:
        raise MismatchError(f"{called} masks other tensors than the dispatcher: train it with the same settings")
    if adapter.norm_stats != dispatcher.norm_stats:
        raise MismatchError(f"{called} carries other statistics than the dispatcher: train it with the same settings")
    if adapter.preprocessing != dispatcher.preprocessing:
        raise MismatchError(f"{called} prepares images unlike the dispatcher: train it with the same settings")


def _arrays(base: Mapping[str, Tensor], header: Header) -> list[np.ndarray]:
    return [base[entry.name].detach().to("cpu").float().numpy() for entry in header.masks]


def _coded_statistics(dispatcher: Adapter, adapter: Adapter) -> bytes:
    """Differences modulo 2^16, all lower bytes before all upper ones, which are alike."""
    difference = adapter.stored_statistics - dispatcher.stored_statistics
    if not difference.any():
        return b""
    return pack_xz(difference.astype("<u2").view(np.uint8).reshape(-1, 2).T.tobytes())


def _statistics_in(dispatcher: Adapter, coded: bytes) -> np.ndarray:
    stored = dispatcher.stored_statistics
    if not coded:
        return stored
    planes = np.frombuffer(unpack_xz(coded, 2 * stored.size, what="an expert's statistics"), dtype=np.uint8)
    if planes.size != 2 * stored.size:
        raise AdapterFileError(f"an expert has {planes.size} bytes of statistics: expected {2 * stored.size}")
    difference = planes.reshape(2, -1).T.copy().view("<u2").reshape(-1).astype(np.uint16)
    found = stored + difference
    if ((found & 0x7F80) == 0x7F80).any():
        raise AdapterFileError("an expert's normalisation statistics are not all finite numbers")
    return found


def _differing(dispatcher: dict[str, Any], expert: dict[str, Any]) -> dict[str, Any]:
    """What an expert's provenance says that its dispatcher's does not, one level deep."""
    found: dict[str, Any] = {}
    for key, value in expert.items():
        known = dispatcher.get(key)
        if isinstance(value, dict) and isinstance(known, dict):
            value = {name: each for name, each in value.items() if name not in known or known[name] != each}
            if value:
                found[key] = value
        elif key not in dispatcher or known != value:
            found[key] = value
    return found
