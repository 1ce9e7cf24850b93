"""Which options of a long help page most people need; `--help` shows these, `--help-all` every one."""

from collections.abc import Mapping

_RUN = ("arch", "weights", "size", "steps", "train", "labels", "teacher", "witness", "precision", "device", "workers")

COMMON: Mapping[str, tuple[str, ...]] = {
    "adapt": ("arch", "weights", "out", *_RUN[2:8], "val", *_RUN[8:], "seed", "resume", "overwrite", "json"),
    "plan": (*_RUN, "json"),
    "eval": (
        "adapter",
        "run",
        "weights",
        "arch",
        "size",
        "knn",
        "linear",
        "k",
        "label_fraction",
        "fail_under",
        "min_gain",
        "report",
        "summary",
        "junit",
        "json",
        "device",
        "workers",
    ),
    "cascade": (
        "run",
        "weights",
        "out",
        "experts",
        "mode",
        "steps",
        "device",
        "workers",
        "resume",
        "overwrite",
        "json",
    ),
}
"""Names of parameters by command, the most used first; a command that is not here has one page."""
