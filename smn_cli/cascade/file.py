"""The cascade file: one safetensors file of a dispatcher, experts, router and combination (docs/format.md)."""

from pathlib import Path

from smn_cli.cascade.cascade import Cascade


def save_cascade(path: str | Path, cascade: Cascade) -> None:
    """Write a cascade file, atomically.

    Raises:
        OSError: the folder is missing or not writable.
    """
    raise NotImplementedError


def load_cascade(path: str | Path) -> Cascade:
    """Read a cascade file.

    Raises:
        AdapterFileError: missing, truncated, altered, or not a cascade.
    """
    raise NotImplementedError


def is_cascade(path: str | Path) -> bool:
    """Whether a file says that it is a cascade; false where it cannot be read, which its reader will tell."""
    raise NotImplementedError
