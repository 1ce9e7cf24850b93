"""smn: adapt a pretrained image backbone to unlabeled images, and ship the result as a small, exact mask file."""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_API = ("Adapter", "Cascade", "adapt", "apply_adapter", "load_adapter", "load_cascade", "save_adapter")

__all__ = [
    "Adapter",
    "Cascade",
    "__version__",
    "adapt",
    "apply_adapter",
    "load_adapter",
    "load_cascade",
    "save_adapter",
]


def __getattr__(name: str) -> Any:
    # torch is loaded when the API is first used, not by `smn --help`
    if name in _API:
        return getattr(import_module("smn_cli.api"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return list(__all__)
