"""Features on disk, so that a base is embedded once for many adapters.

An entry is a safetensors file named by its key (`feature_keys`), with a checksum. Whatever is odd about an entry makes
it one that is not there: it is computed again and written anew.
"""

import hashlib
import json
import os
import time
from contextlib import suppress
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from smn_cli.atomic import atomic_path
from smn_cli.cache_folder import cache_folder

MAX_BYTES = 2_000_000_000
_ABANDONED_AFTER_S = 24 * 3600
_SUFFIX = ".safetensors"


class FeatureCache:
    """Float32 features (N, F) by key; the least recently used go when the folder grows too large.

    Args:
        folder: by default in the user's cache folder; made when something is kept, readable by its owner alone.
        max_bytes: most that all entries take together; what is larger alone is not kept.

    Attributes:
        num_found: images whose features were found so far.
    """

    def __init__(self, folder: Path | None = None, *, max_bytes: int = MAX_BYTES) -> None:
        self.folder = cache_folder() / "features" if folder is None else folder
        self.max_bytes = max_bytes
        self.num_found = 0

    def load(self, key: str, num_images: int) -> Tensor | None:
        """The features kept under a key, if they are there, whole, and of as many images."""
        path = self._path(key)
        try:
            recorded, features = _read(path)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, LookupError, TypeError, RuntimeError):
            _forget(path)
            return None
        if recorded.get("key") != key or len(features) != num_images or recorded.get("sha256") != _checksum(features):
            _forget(path)
            return None
        with suppress(OSError):
            os.utime(path)  # now the most recently used
        self.num_found += num_images
        return features

    def save(self, key: str, features: Tensor) -> None:
        """Keep features (N, F) under a key; where the disk does not let us, nothing happens."""
        if features.nbytes > self.max_bytes:
            return
        metadata = {"key": key, "sha256": _checksum(features)}
        with suppress(OSError, SafetensorError):
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with atomic_path(self._path(key)) as temporary:
                save_file({"features": features.contiguous()}, temporary, metadata=metadata)
            self._make_room()

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}{_SUFFIX}"

    def _make_room(self) -> None:
        """Remove the least recently used entries above the limit, and what a killed process left half written."""
        entries = []
        for path in self.folder.iterdir():
            with suppress(OSError):  # another process may be here too
                found = path.stat()
                if path.name.startswith(".") and time.time() - found.st_mtime > _ABANDONED_AFTER_S:
                    path.unlink()
                elif path.name.endswith(_SUFFIX):
                    entries.append((found.st_mtime_ns, found.st_size, path))
        total = sum(size for _, size, _ in entries)
        for _, size, path in sorted(entries):
            if total <= self.max_bytes:
                return
            _forget(path)
            total -= size


def _read(path: Path) -> tuple[dict[str, str], Tensor]:
    """Metadata and float32 features (N, F) of an entry.

    It is read rather than mapped: a map of a file that somebody cuts meanwhile ends the process with a signal.

    Raises:
        OSError, ValueError, LookupError, TypeError, RuntimeError: it is no whole entry.
    """
    with path.open("rb") as file:
        size_bytes = os.fstat(file.fileno()).st_size
        header_bytes = int.from_bytes(file.read(8), "little")
        header = dict(json.loads(file.read(min(header_bytes, size_bytes))))
        recorded = dict(header.pop("__metadata__"))
        (num_images, width), kind = header["features"]["shape"], header["features"]["dtype"]
        if kind != "F32" or len(header) != 1 or 4 * num_images * width != size_bytes - 8 - header_bytes:
            raise ValueError("not an entry")
        features = torch.empty(num_images, width, dtype=torch.float32)
        if features.numel() and file.readinto(features.numpy().data.cast("B")) != features.nbytes:
            raise ValueError("cut short")
    return recorded, features


def _forget(path: Path) -> None:
    with suppress(OSError):
        path.unlink()


def _checksum(features: Tensor) -> str:
    return hashlib.sha256(features.contiguous().numpy().data).hexdigest()
