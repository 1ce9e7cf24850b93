"""State dicts from files: safetensors, or PyTorch archives opened without running any pickled code."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from smn_cli.errors import DataError, FileError

_NESTED_UNDER = ("state_dict_ema", "model_ema", "state_dict", "model", "model_state_dict", "teacher", "backbone")
_PREFIXES = ("module.", "_orig_mod.", "model.", "backbone.", "encoder.", "net.")


@dataclass(frozen=True)
class WeightFile:
    """Tensors of a file by name, and in words what was unwrapped to get at them."""

    tensors: dict[str, Tensor]
    notes: tuple[str, ...]


def read_weight_file(path: Path) -> WeightFile:
    """Read a state dict, plain or nested under a usual key, and strip usual prefixes that all names share.

    Raises:
        DataError: the file is missing.
        FileError: it is damaged, would need pickled code, or holds no state dict.
    """
    if not path.is_file():
        raise DataError(f"--weights {path} does not exist: expected a .safetensors, .pth or .pth.tar file")
    notes: list[str] = []
    content = _load(path)
    while not _is_state_dict(content):
        key = next((k for k in _NESTED_UNDER if isinstance(content, dict) and isinstance(content.get(k), dict)), None)
        if key is None:
            raise FileError(
                f"{path} holds no state dict: expected tensors by name, plain or under {_NESTED_UNDER[2]!r}"
            )
        content = content[key]
        notes.append(f"took the weights under {key!r}")
    tensors = {name: value for name, value in content.items() if isinstance(value, Tensor)}
    while prefix := next((p for p in _PREFIXES if all(name.startswith(p) for name in tensors)), None):
        tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
        notes.append(f"stripped the prefix {prefix!r}")
    return WeightFile(tensors, tuple(notes))


def _load(path: Path) -> Any:
    with path.open("rb") as file:
        start = file.read(10)
    if path.suffix == ".safetensors" or start[8:10] == b'{"':
        try:
            return load_file(path)
        except (SafetensorError, OSError, ValueError) as error:
            raise FileError(f"{path} is not a readable safetensors file: {_line(error)}") from None
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler raises anything on hostile bytes; all of it means the same to the user
        reason = "it holds Python objects besides tensors" if "weights_only" in str(error) else _line(error)
        raise FileError(
            f"{path} cannot be opened as weights ({reason}): save its state dict as .safetensors or with torch.save"
        ) from None


def _is_state_dict(content: Any) -> bool:
    return isinstance(content, dict) and bool(content) and any(isinstance(value, Tensor) for value in content.values())


def _line(error: Exception) -> str:
    return (str(error) or type(error).__name__).strip().splitlines()[0]
