"""The adapted network over a base that was read by name, with NumPy alone: `Adapter.rebuild` without a network."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from smn_cli.adapters.fingerprint import array_digest, array_digests, fingerprint_of
from smn_cli.adapters.stored import StoredAdapter
from smn_cli.errors import AdapterFileError, MismatchError
from smn_cli.masking.arrays import mask_in_place

_THREADS = 2
_LOOKED_AT = 256


def rebuild_arrays(adapter: StoredAdapter, base: dict[str, np.ndarray]) -> dict[str, np.ndarray] | None:
    """Tensors of the adapted network, checked against the recorded digest; the bits of `Adapter.rebuild`.

    Args:
        adapter: as its file has it.
        base: known to be the recorded base, as `read_matching_base` knows it; its masked tensors are written over.

    Returns:
        The same names. None where a network has to be asked: for weights that are not float32, and where two tensors
        that are alike in the base, and so may be one tensor of the network, would no longer be.

    Raises:
        MismatchError: a masked tensor is of another shape than in the base, or statistics are.
        AdapterFileError: the payload does not decode, or the result is not what was recorded when the adapter was made.
    """
    changed = [entry.name for entry in adapter.header.masks] + [name for name, _ in adapter.header.norm_stats]
    adapter.check_shapes(base)
    if any(base[name].dtype != np.float32 for name in changed):
        return None
    masks, statistics = adapter.mask_arrays(base), adapter.statistics_arrays()
    for name, values in statistics.items():
        if base[name].size != len(values):
            raise MismatchError(f"statistics {name} of {len(values)} values do not fit the base")
    if _may_be_tied_apart(base, masks | statistics):
        return None
    with ThreadPoolExecutor(_THREADS) as pool:  # NumPy lets go of the interpreter
        list(pool.map(lambda name: mask_in_place(base[name], masks[name]), masks))
    state = base | {name: values.reshape(base[name].shape) for name, values in statistics.items()}
    if fingerprint_of(array_digests(state)).digest != adapter.header.adapted_digest:
        raise AdapterFileError("the rebuilt network is not the recorded one: the adapter was altered when made")
    return state


def _may_be_tied_apart(base: Mapping[str, np.ndarray], changes: Mapping[str, np.ndarray]) -> bool:
    """Whether two tensors that are alike in the base are changed unlike each other."""
    looks: dict[tuple[object, ...], list[str]] = {}
    for name in changes:
        looks.setdefault((base[name].shape, base[name].reshape(-1)[:_LOOKED_AT].tobytes()), []).append(name)
    first: dict[bytes, str] = {}
    return any(
        not np.array_equal(changes[name], changes[first.setdefault(array_digest("", base[name]), name)])
        for names in looks.values()
        if len(names) > 1
        for name in names
    )
