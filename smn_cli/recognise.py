"""What a file is that was given in another's place, so that the message can say where it belongs."""

import json
import os
import stat
from pathlib import Path
from typing import Any

METADATA_KEY = "smn"
CASCADE_TENSOR = "dispatcher"
"""The tensor by which a cascade is told from an adapter."""
_MAX_HEADER_BYTES = 1 << 24
_IMAGES = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"RIFF")
_ADAPTER, _CASCADE, _CHECKPOINT, _TORCH, _IMAGE = (
    "an adapter, which goes where FILE or --adapter stands",
    "a cascade, which goes where FILE or --adapter stands",
    "a checkpoint of weights, which goes with --weights",
    "a PyTorch file, which goes with --weights if it holds weights",
    "an image",
)


def kind_of_folder(path: Path) -> str:
    """A folder in words, and where it belongs."""
    try:
        schema = str(read_json(path / "config.json").get("schema", ""))
    except (OSError, ValueError, AttributeError):
        schema = ""
    if schema.startswith("smn.run/"):
        return "a run folder: smn eval and smn embed take it with --run, smn pack makes an adapter of it"
    if schema.startswith("smn.cascade-run/"):
        return f"the folder of a cascade: give its {path / 'cascade.safetensors'}"
    return "a folder: expected a file"


def kind_of_bytes(data: bytes) -> str | None:
    """What a file's first bytes, with the whole header of a safetensors file, show; None if they show nothing."""
    if data.startswith((b"PK\x03\x04", b"\x80\x02", b"\x80\x04")):
        return _TORCH
    if data.startswith(_IMAGES):
        return _IMAGE
    length = int.from_bytes(data[:8], "little")
    if not 2 <= length <= min(_MAX_HEADER_BYTES, len(data) - 8):
        return None
    try:
        header = json.loads(data[8 : 8 + length])
    except (ValueError, RecursionError):
        return None
    if not isinstance(header, dict):
        return None
    metadata = header.get("__metadata__")
    if isinstance(metadata, dict) and METADATA_KEY in metadata:
        return _CASCADE if CASCADE_TENSOR in header and "mask" not in header else _ADAPTER
    # a file of smn's own whose metadata was altered has its checksum still
    return _CHECKPOINT if header.keys() - {"__metadata__"} and "sha256" not in header else None


def kind_of_file(path: Path) -> str | None:
    """The same of a file on disk."""
    try:
        with path.open("rb") as file:
            start = file.read(8)
            length = int.from_bytes(start, "little")
            return kind_of_bytes(start + file.read(min(length, _MAX_HEADER_BYTES)))
    except OSError:
        return None


def check_regular(path: Path) -> str | None:
    """Why a path is not read as a file: it would wait for ever, or is a folder. None if it is one, or is not there."""
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116
    except (OSError, ValueError):
        return None
    if stat.S_ISDIR(mode):
        return f"is {kind_of_folder(path)}"
    return None if stat.S_ISREG(mode) else "is a pipe, a socket or a device: expected a file"


def read_file(path: Path) -> bytes:
    """A file's bytes; what is no file is refused where it would be waited for.

    Raises:
        OSError: it cannot be read, or is no file.
    """
    if (reason := check_regular(path)) is not None:
        raise OSError(reason)
    return path.read_bytes()


def read_json(path: Path) -> Any:
    """What a file of JSON holds.

    Raises:
        OSError: it cannot be read, or is no file.
        ValueError: it is no JSON, or one that is nested deeper than any of ours.
    """
    try:
        return json.loads(read_file(path))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
