"""What can go wrong for a user, each with the exit code that the contract gives it.

Every message is one line that says what, which file or option, what was expected and found, and what to do.
"""

from collections.abc import Collection


class SmnError(Exception):
    """Base of all errors a user can cause or mend; `smn` prints the message and exits with `exit_code`."""

    exit_code = 1


class UsageError(SmnError):
    """An option or argument has a value that cannot be used, alone or with the others."""

    exit_code = 2


class ClashError(UsageError):
    """An option does not go with others that were given, too.

    On the command line a setting of a file or of the environment gives way to what was typed.

    Args:
        message: as of every error.
        option: parameter that is given.
        others: parameters that it does not go with, as they are.
    """

    def __init__(self, message: str, option: str = "", others: Collection[str] = ()) -> None:
        super().__init__(message)
        self.option, self.others = option, tuple(others)


class GateError(SmnError):
    """An evaluation finished and a gate of `smn eval` failed."""

    exit_code = 3


class MismatchError(SmnError):
    """An adapter and a base do not belong together."""

    exit_code = 4


class DataError(SmnError):
    """Images, labels or weights are missing or unfit."""

    exit_code = 5


class BackboneError(DataError):
    """A backbone cannot be built, or its weights cannot be had or do not fit."""


class HubError(DataError):
    """Something on the Hugging Face hub cannot be had or written."""


class FileError(SmnError):
    """A file of ours or a checkpoint cannot be read, or is damaged."""

    exit_code = 6


class AdapterFileError(FileError):
    """An adapter file is truncated, altered, hostile, or from a newer format."""


class CheckpointError(FileError):
    """A run folder or its training state cannot be read."""


class TrainingError(SmnError):
    """Training cannot go on: an empty mask or a loss that is no longer a number."""


class LeftOutWarning(UserWarning):
    """An adapter was put on a network that lacks some of the tensors that it changes."""


class Interrupted(SmnError):
    """Stopped by a signal; the state is saved."""

    exit_code = 130


def first_few(names: list[str], *, limit: int = 5) -> str:
    """Join names for a message: the first `limit`, then how many more."""
    shown = ", ".join(names[:limit])
    return f"{shown} and {len(names) - limit} more" if len(names) > limit else shown


def printable(text: str) -> str:
    """Text from files as a terminal may have it: control characters, which could steer it, are shown escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
