"""An adapter as it is stored: what it says of itself, without its base."""

from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from smn_cli.adapters.codecs import CODECS
from smn_cli.adapters.file import AdapterContent, read_adapter
from smn_cli.adapters.fingerprint import Fingerprint
from smn_cli.adapters.head import StoredHead
from smn_cli.adapters.readout import StoredReadout
from smn_cli.adapters.schema import Header
from smn_cli.adapters.statistics import widened
from smn_cli.atomic import write_atomically
from smn_cli.backbones.names import full_name
from smn_cli.errors import AdapterFileError, MismatchError

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from smn_cli.data.preprocessing import Preprocessing


class StoredAdapter:
    """Header, coded mask, carried statistics, classifier and readout of a file; NumPy is enough to read one."""

    def __init__(self, content: AdapterContent) -> None:
        self._content = content

    def __repr__(self) -> str:
        """Arch, density, bytes of the file, and the side of its images in pixels, where the file says it."""
        parts = [repr(self.made_for), f"density={self.density:.4f}", f"size_bytes={self.size_bytes}"]
        size = self.header.preprocessing.get("size")
        parts += [] if size is None else [f"image_size={size}"]
        return f"{type(self).__name__}({', '.join(parts)})"

    @property
    def header(self) -> Header:
        """What the file says of itself."""
        return self._content.header

    @property
    def arch(self) -> str:
        """timm's name of the architecture, without a tag."""
        return self.header.arch

    @property
    def made_for(self) -> str:
        """The base in words, by which timm builds it: architecture and, if known, tag, or a repository on the hub."""
        return full_name(self.header.arch, self.header.tag)

    @property
    def density(self) -> float:
        """Fraction of all masked weights that is kept, above 0 and at most 1."""
        return self.header.density

    @property
    def preprocessing(self) -> "Preprocessing":
        """How images were prepared when it was made, and have to be now: side in pixels, mean, std, interpolation.

        Raises:
            AdapterFileError: the file does not say it in a usable way.
        """
        from smn_cli.data.preprocessing import Preprocessing

        try:
            return Preprocessing.from_json(self.header.preprocessing)
        except (KeyError, TypeError, ValueError) as error:
            raise AdapterFileError(f"the adapter's preprocessing is unusable: {error}") from None

    def transform(self) -> "Callable[[Image.Image], Tensor]":
        """That preparation as torchvision's transform: a PIL image of any mode to float32 (3, size, size).

        The same bits as in smn's own training and evaluation; it can be pickled to loader processes.

        Raises:
            AdapterFileError: as `preprocessing`.
        """
        return self.preprocessing.transform()

    @cached_property
    def size_bytes(self) -> int:
        """Size of the adapter file."""
        return len(self.to_bytes())

    @property
    def payload_bytes(self) -> int:
        """Size of the coded mask."""
        return len(self._content.payload)

    @property
    def norm_stats_bytes(self) -> int:
        """Size of the carried statistics."""
        return int(self._content.norm_stats.nbytes)

    @property
    def head(self) -> StoredHead | None:
        """The classifier that it carries; None if it has none."""
        return self._content.head

    @property
    def head_bytes(self) -> int:
        """Size of the carried classifier."""
        return 0 if self.head is None else self.head.nbytes

    @property
    def readout(self) -> StoredReadout | None:
        """The readout that it carries, a function of features; None if it has none."""
        return self._content.readout

    @property
    def readout_bytes(self) -> int:
        """Size of the carried readout."""
        return 0 if self.readout is None else self.readout.nbytes

    @property
    def part_bytes(self) -> int:
        """Size of mask, statistics, classifier and readout; what is left of the file is metadata."""
        return self.payload_bytes + self.norm_stats_bytes + self.head_bytes + self.readout_bytes

    @property
    def stored_statistics(self) -> np.ndarray:
        """(sum of lengths,) uint16: the upper halves of the carried statistics."""
        return self._content.norm_stats

    @property
    def base_fingerprint(self) -> Fingerprint:
        """Of the base that it was made for."""
        return Fingerprint(self.header.base_digest, self._content.base_rows)

    def statistics(self) -> "dict[str, Tensor]":
        """Carried statistics by name, flat."""
        import torch

        return {name: torch.from_numpy(values) for name, values in self.statistics_arrays().items()}

    def statistics_over(self, base: "Mapping[str, Tensor]", *, partly: bool = False) -> "dict[str, Tensor]":
        """Carried statistics by name, of the shapes and types that they have in the base and on its device.

        Args:
            base: state dict.
            partly: leave out those that it does not have.

        Raises:
            MismatchError: one is missing or of another length there.
        """
        placed: dict[str, Tensor] = {}
        for name, values in self.statistics().items():
            if partly and name not in base:
                continue
            if name not in base or base[name].numel() != len(values):
                raise MismatchError(f"statistics {name} of {len(values)} values do not fit the base")
            placed[name] = values.view(base[name].shape).to(base[name])
        return placed

    def statistics_arrays(self) -> dict[str, np.ndarray]:
        """Carried statistics by name: (length,) float32."""
        ends = np.cumsum([length for _, length in self.header.norm_stats], dtype=np.int64)
        parts = np.split(widened(self._content.norm_stats), ends[:-1])
        return {name: values for (name, _), values in zip(self.header.norm_stats, parts, strict=False)}

    def check_shapes(self, base: "Mapping[str, Tensor] | Mapping[str, np.ndarray]") -> None:
        """Refuse a base in which a masked tensor is missing or of another shape; shapes bound what is decoded.

        Raises:
            MismatchError: names the first such tensor.
        """
        for entry in self.header.masks:
            found = tuple(base[entry.name].shape) if entry.name in base else None
            if found != entry.shape:
                what = "is missing" if found is None else f"has shape {found}"
                raise MismatchError(f"{entry.name} {what} in the base: the adapter expects {entry.shape}")

    def mask_arrays(self, weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Bool masks by parameter name, each of its parameter's shape.

        Args:
            weights: the base's masked tensors, float32; not looked at if the codec does not need them. Then it is for
                the caller to bound what the header's shapes make this allocate.

        Raises:
            AdapterFileError: the payload does not decode to the recorded counts.
        """
        arrays = [weights[entry.name] for entry in self.header.masks] if self.header.needs_base else []
        return self._split(CODECS[self.header.codec].decode(self._content.payload, self.header.num_weights, arrays))

    def _split(self, bits: np.ndarray) -> dict[str, np.ndarray]:
        masks: dict[str, np.ndarray] = {}
        start = 0
        for entry in self.header.masks:
            mask = bits[start : start + entry.num_weights].copy().reshape(entry.shape)
            if (num_kept := int(np.count_nonzero(mask))) != entry.num_kept:
                raise AdapterFileError(f"the mask of {entry.name} keeps {num_kept}: {entry.num_kept} recorded")
            masks[entry.name] = mask
            start += entry.num_weights
        return masks

    def to_bytes(self) -> bytes:
        """The adapter file's bytes."""
        return self._content.to_bytes()

    def save(self, path: str | Path) -> None:
        """Write the adapter file, atomically.

        Raises:
            OSError: the folder is missing or not writable.
        """
        write_atomically(Path(path), self.to_bytes())


def load_stored(path: str | Path) -> StoredAdapter:
    """Read an adapter file for what it says of itself, without torch; `load_adapter` gives one that can be applied.

    Raises:
        AdapterFileError: missing, truncated, altered, or not an adapter.
    """
    return StoredAdapter(read_adapter(path))
