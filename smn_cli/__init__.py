"""smn: adapt a pretrained image backbone to unlabeled images, and ship the result as a small, exact mask file."""

from importlib import import_module
from typing import TYPE_CHECKING

from smn_cli.errors import (
    AdapterFileError,
    BackboneError,
    CheckpointError,
    ClashError,
    DataError,
    FileError,
    GateError,
    HubError,
    Interrupted,
    LeftOutWarning,
    MismatchError,
    SmnError,
    TrainingError,
    UsageError,
)

if TYPE_CHECKING:
    from smn_cli.api import (
        Adapter,
        AdapterSet,
        AdaptOptions,
        Cascade,
        Comparison,
        ImageFeatures,
        Placement,
        StepReport,
        adapt,
        apply_adapter,
        embed,
        evaluate,
        load_adapter,
        load_cascade,
        remove_adapter,
        save_adapter,
    )
else:

    def __getattr__(name: str) -> object:
        # torch is loaded when the API is first used, not by `smn --help`
        if name in __all__:
            return getattr(import_module("smn_cli.api"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return list(__all__)


__version__ = "0.1.0"

__all__ = [
    "AdaptOptions",
    "Adapter",
    "AdapterFileError",
    "AdapterSet",
    "BackboneError",
    "Cascade",
    "CheckpointError",
    "ClashError",
    "Comparison",
    "DataError",
    "FileError",
    "GateError",
    "HubError",
    "ImageFeatures",
    "Interrupted",
    "LeftOutWarning",
    "MismatchError",
    "Placement",
    "SmnError",
    "StepReport",
    "TrainingError",
    "UsageError",
    "__version__",
    "adapt",
    "apply_adapter",
    "embed",
    "evaluate",
    "load_adapter",
    "load_cascade",
    "remove_adapter",
    "save_adapter",
]
