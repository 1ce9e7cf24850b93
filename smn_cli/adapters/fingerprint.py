"""What a base is, in bytes: a digest per tensor and one over all (docs/format.md, "Fingerprint").

Independent of file format, device, memory layout and order. Counters of batches seen are left out: they do not touch
any output, and older checkpoints lack them.
"""

import hashlib
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from smn_cli.errors import MismatchError, first_few

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")

IGNORED_SUFFIX = "num_batches_tracked"
ROW_BYTES, NAME_BYTES = 4, 3
"""Bytes a tensor has in the compact list: three of its name's digest, one of its own."""
_THREADS = 2
_IS_LITTLE = sys.byteorder == "little"


@dataclass(frozen=True)
class Fingerprint:
    """Digest of a state dict.

    Attributes:
        digest: 64 hex characters over all tensors.
        rows: (num_tensors, 4) uint8, in the order of the sorted names; enough to name what differs.
    """

    digest: str
    rows: np.ndarray

    def has(self, name: str) -> bool:
        """Whether a tensor of that name is part of it."""
        return not name.endswith(IGNORED_SUFFIX) and _name_digest(name) in self._names

    def differing(self, digests: Mapping[str, bytes]) -> list[str]:
        """Those of its tensors, given by their own digests, that are not as recorded; misses one difference in 256."""
        known = {row[:NAME_BYTES].tobytes(): row[NAME_BYTES:].tobytes() for row in self.rows}
        return [
            name for name in _ordered(digests) if known[_name_digest(name)] != digests[name][: ROW_BYTES - NAME_BYTES]
        ]

    @cached_property
    def _names(self) -> frozenset[bytes]:
        return frozenset(row[:NAME_BYTES].tobytes() for row in self.rows)


def tensor_digest(name: str, tensor: "Tensor") -> bytes:
    """SHA-256 of name, type, shape and little-endian contiguous values."""
    import torch

    plain = tensor.detach().to("cpu").contiguous()
    values = plain.reshape(-1).view(torch.uint8).numpy()
    values = values if _IS_LITTLE else _swapped(values, plain.element_size())
    return _digest(name, str(plain.dtype).removeprefix("torch."), plain.shape, values)


def array_digest(name: str, array: np.ndarray) -> bytes:
    """`tensor_digest` of a tensor with these values; types of NumPy that torch has, too, are called the same there."""
    plain = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    return _digest(name, plain.dtype.name, array.shape, plain.reshape(-1).view(np.uint8))


def _digest(name: str, dtype: str, shape: Sequence[int], values: np.ndarray) -> bytes:
    hasher = hashlib.sha256(f"{name}\0{dtype}\0{'x'.join(map(str, shape))}\0".encode())
    hasher.update(values.data)
    return hasher.digest()


def _swapped(values: np.ndarray, element_size: int) -> np.ndarray:
    return np.ascontiguousarray(values.reshape(-1, element_size)[:, ::-1])


def fingerprint(state: "Mapping[str, Tensor]") -> Fingerprint:
    """Fingerprint of the tensors of a state dict, classifier and counters left out by the caller and here."""
    return fingerprint_of(tensor_digests(state))


def tensor_digests(state: "Mapping[str, Tensor]", *, known: Mapping[str, bytes] | None = None) -> dict[str, bytes]:
    """Digest of every tensor of a state dict but counters; those in `known` are taken from there."""
    from smn_cli.threads import torch_threads

    return _digests(state, tensor_digest, known or {}, torch_threads)


def array_digests(state: Mapping[str, np.ndarray]) -> dict[str, bytes]:
    """`tensor_digests` of tensors with these values."""
    return _digests(state, array_digest, {}, ThreadPoolExecutor)


def _digests(
    state: Mapping[str, T],
    digest: Callable[[str, T], bytes],
    known: Mapping[str, bytes],
    threads: Callable[[int], ThreadPoolExecutor],
) -> dict[str, bytes]:
    names = [name for name in _ordered(state) if name not in known]
    # hashlib lets go of the interpreter while it works
    with threads(_THREADS) as pool:
        found = dict(zip(names, pool.map(lambda name: digest(name, state[name]), names), strict=True))
    return {name: known[name] if name in known else found[name] for name in _ordered(state)}


def fingerprint_of(digests: Mapping[str, bytes]) -> Fingerprint:
    """Fingerprint of tensors with these digests."""
    names = sorted(digests)
    overall = hashlib.sha256(b"".join(digests[name] for name in names)).hexdigest()
    rows = np.frombuffer(b"".join(_row(name, digests[name]) for name in names), dtype=np.uint8)
    return Fingerprint(overall, rows.reshape(len(names), ROW_BYTES))


def select_base(state: Mapping[str, T], expected: Fingerprint) -> dict[str, T]:
    """The tensors of `state` that the expected base has too, by name: a classifier on top is left aside."""
    return {name: tensor for name, tensor in state.items() if expected.has(name)}


def check_base(
    state: "Mapping[str, Tensor]", expected: Fingerprint, *, made_for: str, names: Iterable[str] = ()
) -> dict[str, bytes]:
    """Refuse a base that is not, bit for bit, the one an adapter was made for.

    Args:
        state: the network's state dict; tensors that the expected base does not have are left aside.
        expected: what the adapter recorded.
        made_for: the recorded base in words, for the message.
        names: those of its tensors that are known by name, to tell which one is missing.

    Returns:
        Digests of its tensors by name.

    Raises:
        MismatchError: names the first tensor that differs, and a likely cause.
    """
    base = select_base(state, expected)
    digests = tensor_digests(base)
    found = fingerprint_of(digests)
    if found.digest == expected.digest:
        return digests
    differing = expected.differing(digests)
    num_missing = len(expected.rows) - len(found.rows)
    if not num_missing and not differing:  # once in 256 times, or the list itself was altered
        raise MismatchError(f"the adapter was made for other weights of {made_for}: a tensor of this base differs")
    if num_missing:
        missing = sorted(name for name in names if name not in base)
        first_missing = f" ({first_few(missing)})" if missing else ""
        first_differing = f", and {differing[0]} differs" if differing else ""
        raise MismatchError(
            f"the adapter was made for {made_for} with {len(expected.rows)} tensors, this base lacks {num_missing} of "
            f"them{first_missing}{first_differing}: it is another architecture or another version of it"
        )
    first = base[differing[0]]
    raise MismatchError(
        f"the adapter was made for other weights of {made_for}: {len(differing)} of {len(digests)} tensors differ, "
        f"first {differing[0]} {tuple(first.shape)}; {_likely_cause(base, differing)}"
    )


def _likely_cause(base: "Mapping[str, Tensor]", differing: list[str]) -> str:
    import torch

    floats = [tensor for tensor in base.values() if tensor.is_floating_point()]
    if all(torch.equal(t, t.half().to(t.dtype)) for t in floats) or all(
        torch.equal(t, t.bfloat16().to(t.dtype)) for t in floats
    ):
        return "these went through half precision: take the float32 file"
    if all(name.endswith(("running_mean", "running_var")) for name in differing):
        return "only normalisation statistics differ: the base ran in training mode after it was saved"
    if len(differing) == 1:
        return "a single tensor differs: the file was edited"
    return "take the same timm tag or weights file as for training"


def _ordered(state: Mapping[str, object]) -> list[str]:
    return sorted(name for name in state if not name.endswith(IGNORED_SUFFIX))


def _name_digest(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()[:NAME_BYTES]


def _row(name: str, digest: bytes) -> bytes:
    return _name_digest(name) + digest[: ROW_BYTES - NAME_BYTES]
