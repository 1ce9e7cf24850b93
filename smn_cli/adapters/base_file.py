"""A base's weights straight from a safetensors file, where that already holds them as the adapter's maker had them.

Names, types, shapes and bytes are then proved by the fingerprint, so no network has to be built, and NumPy is enough.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from smn_cli.adapters.fingerprint import IGNORED_SUFFIX, Fingerprint, array_digests, fingerprint_of, select_base

_KINDS = frozenset({"F64", "F32", "F16", "I64", "I32", "I16", "I8", "U8", "BOOL"})
"""Types that NumPy and torch have, and call alike."""


def read_matching_base(path: Path, expected: Fingerprint) -> dict[str, np.ndarray] | None:
    """The base's tensors by name, if a file holds exactly those of a fingerprint beside whatever else is in it.

    Args:
        path: the file.
        expected: what an adapter recorded of its base.

    Returns:
        None if it is no readable safetensors file, has other names, as files of other layouts do, or other values:
        whoever asked has to load a network to know, or to say what is wrong.
    """
    if path.suffix != ".safetensors" or not path.is_file():  # a pipe would be waited for
        return None
    try:
        tensors = _read(path, expected)
    except (OSError, SafetensorError, ValueError, TypeError):
        return None
    if tensors is None or len(tensors) != len(expected.rows):
        return None
    return tensors if fingerprint_of(array_digests(tensors)).digest == expected.digest else None


def read_others(path: Path, expected: Fingerprint) -> dict[str, np.ndarray] | None:
    """What a file of `read_matching_base` holds beside the base, counters too; None if NumPy does not know a type.

    Raises:
        OSError, SafetensorError: the file is no longer what it was.
    """
    with safe_open(path, framework="numpy") as file:
        names = [name for name in list(file.keys()) if not expected.has(name)]
        if any(file.get_slice(name).get_dtype() not in _KINDS for name in names):
            return None
        return {name: file.get_tensor(name) for name in names}


def _read(path: Path, expected: Fingerprint) -> dict[str, np.ndarray] | None:
    with safe_open(path, framework="numpy") as file:
        names: Mapping[str, None] = dict.fromkeys(
            name for name in list(file.keys()) if not name.endswith(IGNORED_SUFFIX)
        )
        wanted = select_base(names, expected)
        if any(file.get_slice(name).get_dtype() not in _KINDS for name in wanted):
            return None
        return {name: file.get_tensor(name) for name in wanted}
