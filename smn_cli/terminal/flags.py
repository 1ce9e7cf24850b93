"""The library's messages name parameters, in backticks; on the command line they are options."""

import re

_PARAMETER = re.compile(r"`([a-z][a-z0-9_]*)`")


def in_flags(message: str, names: frozenset[str]) -> str:
    """A message with `lr_scores` as --lr-scores.

    Args:
        message: of the library, which may hold backticks for other ends, too.
        names: of all parameters of commands.
    """

    def flag(found: re.Match[str]) -> str:
        name = found.group(1)
        return f"--{name.replace('_', '-')}" if name in names else found.group(0)

    return _PARAMETER.sub(flag, message)
