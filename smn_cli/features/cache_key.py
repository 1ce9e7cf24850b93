"""What features depend on, to the last bit, as one key: network, images, preparation, code, libraries, machine.

Whatever is in doubt is in the key, or there is none: features that are computed twice cost minutes, features that are
wrong cost the trust in every evaluation.
"""

import hashlib
import json
import os
import platform
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from PIL import features as pillow_features

SETTLED_AFTER_NS = 2_000_000_000
"""A file changed less than this before could change once more within the same tick of its file system's clock."""
_LIBRARIES = ("smn-cli", "torch", "torchvision", "timm", "pillow", "numpy")
_DECODERS = ("jpg", "libjpeg_turbo", "webp", "libtiff", "zlib")
_VARIABLES = ("ATEN_", "DNNL_", "ONEDNN_", "MKL_", "OMP_NUM_THREADS", "CUDA_", "CUBLAS_", "CUDNN_", "NVIDIA_", "TORCH_")
_SOURCES = ("data", "evaluation", "backbones", "features")


def feature_key(
    paths: Sequence[Path], *, network: Mapping[str, str], how: Mapping[str, Any], device: torch.device
) -> str | None:
    """64 hex characters that are others as soon as anything is that the features could depend on.

    Args:
        paths: of the images, in order.
        network: digest of its tensors, and whatever else tells it from others.
        how: preparation of the images, precision, batch size; plain values.
        device: where it runs.

    Returns:
        None if there can be no key: a file is missing or was changed just now, or a library does not tell its version.
    """
    files = hashlib.sha256()
    newest = 0
    try:
        for path in paths:
            found = path.stat()
            newest = max(newest, found.st_mtime_ns, found.st_ctime_ns)
            row = [str(path.absolute()), found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]
            files.update(json.dumps(row).encode())
        everything = {
            "files": files.hexdigest(),
            "num_files": len(paths),
            "network": dict(network),
            "how": dict(how),
            "code": _code(),
            "libraries": _libraries(),
            "machine": _machine(device),
        }
    except (OSError, ImportError, RuntimeError):
        return None
    if newest > time.time_ns() - SETTLED_AFTER_NS:
        return None
    return hashlib.sha256(json.dumps(everything, sort_keys=True).encode()).hexdigest()


def machine_key(about: Mapping[str, Any], device: torch.device) -> str | None:
    """64 hex characters for what depends on processor, threads and libraries, and on what it is about (plain values).

    None if a library does not tell its version.
    """
    try:
        everything = {"about": dict(about), "libraries": _libraries(), "machine": _machine(device)}
    except (OSError, ImportError, RuntimeError):
        return None
    return hashlib.sha256(json.dumps(everything, sort_keys=True).encode()).hexdigest()


def _code() -> str:
    """Digest of the sources of the rooms that turn files into features."""
    root = Path(__file__).parent.parent
    sources = sorted(path for room in _SOURCES for path in (root / room).rglob("*.py"))
    if not sources:
        raise FileNotFoundError("the sources of smn_cli are not here")
    return hashlib.sha256(b"".join(hashlib.sha256(path.read_bytes()).digest() for path in sources)).hexdigest()


def _libraries() -> dict[str, Any]:
    return {
        **{name: version(name) for name in _LIBRARIES},
        "decoders": {name: str(pillow_features.version(name)) for name in _DECODERS},
        "build": torch.__config__.show(),
    }


def _machine(device: torch.device) -> dict[str, Any]:
    """Processor, threads and switches: each decides in which order numbers are added somewhere."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    return {
        "device": [device.type, name],
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "switches": [
            torch.backends.cpu.get_cpu_capability(),
            torch.backends.mkldnn.enabled,
            torch.get_float32_matmul_precision(),
            torch.backends.cudnn.enabled,
            torch.backends.cudnn.benchmark,
            torch.backends.cudnn.allow_tf32,
            torch.are_deterministic_algorithms_enabled(),
            str(torch.get_default_dtype()),
        ],
        "environment": {key: value for key, value in sorted(os.environ.items()) if key.startswith(_VARIABLES)},
    }


def _processor() -> list[str]:
    """The processor as the system names it; kernels are chosen by what it can do."""
    listing = Path("/proc/cpuinfo")
    lines = listing.read_text().splitlines() if listing.exists() else []
    told = {line for line in lines if line.startswith(("model name", "flags", "Features"))}
    return [platform.machine(), platform.processor(), *sorted(told)]
