"""State dicts from files: safetensors, or PyTorch archives opened without running any pickled code."""

import warnings
from argparse import Namespace
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from smn_cli.errors import DataError, FileError
from smn_cli.recognise import check_regular, kind_of_file

_NESTED_UNDER = ("state_dict_ema", "model_ema", "state_dict", "model", "model_state_dict", "teacher", "backbone")
MAX_TENSORS = 32_768
"""Ten times the tensors of the largest backbones; each costs time however small it is."""
_MAX_NESTING = 4  # a hostile file may hold itself
_PREFIXES = ("module.", "_orig_mod.", "model.", "backbone.", "encoder.", "net.")


@dataclass(frozen=True)
class WeightFile:
    """Tensors of a file by name, and in words what was unwrapped to get at them."""

    tensors: dict[str, Tensor]
    notes: tuple[str, ...]


def read_weight_file(path: Path, *, wanted: Collection[str] = ()) -> WeightFile:
    """Read a state dict, plain or nested under a usual key, and strip usual prefixes that all names share.

    Args:
        path: the file.
        wanted: names that it should have; a prefix that they share, too, is their own and stays.

    Raises:
        DataError: the file is missing.
        FileError: it is damaged, would need pickled code, or holds no state dict.
    """
    if (reason := check_regular(path)) is not None:
        raise DataError(f"`weights` {path} {reason}")
    if (kind := kind_of_file(path)) is not None and kind.startswith(("an adapter", "a cascade", "an image")):
        raise FileError(f"`weights` {path} is {kind}: expected the weights of the backbone itself")
    if not path.is_file():
        raise DataError(f"`weights` {path} does not exist: expected a .safetensors, .pth or .pth.tar file")
    notes: list[str] = []
    content = _load(path)
    # beside the nested weights there may be tensors of the training, such as the best accuracy
    while (key := _nested_key(content)) is not None and len(notes) < _MAX_NESTING:
        beside = " (not 'student')" if key == "teacher" and "student" in content else ""
        content = content[key]
        notes.append(f"took the weights under {key!r}{beside}")
    tensors = _named_tensors(content)
    _check_count(path, len(tensors))
    if not tensors:
        raise FileError(f"{path} holds no state dict: expected tensors by name, plain or under {_NESTED_UNDER[2]!r}")
    prefixes = [p for p in _PREFIXES if not wanted or not all(name.startswith(p) for name in wanted)]
    while prefix := next((p for p in prefixes if all(name.startswith(p) for name in tensors)), None):
        tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
        notes.append(f"stripped the prefix {prefix!r}")
    return WeightFile(tensors, tuple(notes))


def _load(path: Path) -> Any:
    with path.open("rb") as file:
        start = file.read(10)
    if not start:
        raise FileError(f"{path} is empty: expected weights")
    if path.suffix == ".safetensors" or start[8:10] == b'{"':
        try:
            with safe_open(path, framework="pt") as file:
                _check_count(path, len(list(file.keys())))
            return load_file(path)
        except (SafetensorError, OSError, ValueError) as error:
            raise FileError(f"{path} is not a readable safetensors file: {_line(error)}") from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on TorchScript archives, which are refused
            # DINO and many others keep their options beside the weights; a Namespace runs nothing when it is made
            with torch.serialization.safe_globals([Namespace]):
                return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler raises anything on hostile bytes; all of it means the same to the user
        if "TorchScript" in str(error):
            raise FileError(
                f"{path} is a TorchScript archive, as OpenAI publishes CLIP, and would run code of its own: if you "
                "trust it, save its weights once with torch.save(torch.jit.load(FILE, 'cpu').state_dict(), NEW)"
            ) from None
        reason = _why_not_loaded(start, error)
        raise FileError(
            f"{path} cannot be opened as weights ({reason}): save its state dict as .safetensors or with torch.save"
        ) from None


def _check_count(path: Path, num_tensors: int) -> None:
    if num_tensors > MAX_TENSORS:
        raise FileError(f"`weights` {path} holds {num_tensors:,} tensors: expected at most {MAX_TENSORS:,}")


def _nested_key(content: Any) -> str | None:
    if not isinstance(content, dict):
        return None
    return next((key for key in _NESTED_UNDER if isinstance(content.get(key), dict) and content[key]), None)


def _named_tensors(content: Any) -> dict[str, Tensor]:
    items = content.items() if isinstance(content, dict) else ()
    return {name: value for name, value in items if isinstance(name, str) and isinstance(value, Tensor)}


def _why_not_loaded(start: bytes, error: Exception) -> str:
    if not start.startswith((b"PK", b"\x80")):  # a zip archive, or a pickle as older versions of torch wrote it
        return "it is no PyTorch file"
    if "weights_only" in str(error):
        return "it holds Python objects besides tensors"
    return _line(error).partition(". ")[0]


def _line(error: Exception) -> str:
    return (str(error) or type(error).__name__).strip().splitlines()[0]
