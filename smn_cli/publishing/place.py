"""Where a folder of a network may be written, and what is in it."""

from pathlib import Path

from smn_cli.errors import UsageError, first_few

CONFIG, WEIGHTS, PAGE = "config.json", "model.safetensors", "README.md"
"""The first two are what timm and transformers look for."""


def check_free(folder: Path, *, overwrite: bool) -> None:
    """Refuse a folder that cannot or should not be written, before the work is done.

    Args:
        folder: to be.
        overwrite: whether one that was written before may be replaced; others never are.

    Raises:
        UsageError: the folder above is missing, or something is there that may not be replaced.
    """
    above = folder.absolute().parent
    if not above.is_dir():
        raise UsageError(f"`out` {folder}: the folder {above} does not exist")
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise UsageError(f"`out` {folder} is no folder: choose another `out`")
    there = sorted(path.name for path in folder.iterdir()) if folder.exists() else []
    if others := [name for name in there if name not in (CONFIG, WEIGHTS, PAGE)]:
        raise UsageError(f"`out` {folder} holds other things ({first_few(others, limit=3)}): choose another `out`")
    if there and not overwrite:
        raise UsageError(f"`out` {folder} exists: `overwrite` replaces it")
