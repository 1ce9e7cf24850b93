"""The library's messages name parameters, in backticks; on the command line they are options."""

import re
from dataclasses import fields

from smn_cli.config.options import AdaptOptions

_PARAMETER = re.compile(r"`([a-z][a-z0-9_]*)`")
_OF_RUNS = frozenset({field.name for field in fields(AdaptOptions)} | {"arch", "out", "resume", "val", "weights"})


def in_flags(message: str, names: frozenset[str] = _OF_RUNS) -> str:
    """A message with `lr_scores` as --lr-scores.

    Args:
        message: of the library, which may hold backticks for other ends, too.
        names: of all parameters of commands; by default those of runs.
    """

    def flag(found: re.Match[str]) -> str:
        name = found.group(1)
        return f"--{name.replace('_', '-')}" if name in names else found.group(0)

    return _PARAMETER.sub(flag, message)
