"""Files and folders that are either complete or not there, also after a crash."""

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from smn_cli.holding import clear_orphans, hold

_NO_ROOM = (errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC), errno.EIO, errno.EROFS)
"""What a system says when it takes no more bytes."""
_RUST_CODE = re.compile(r"\(os error (\d+)\)")


def may_be_written(path: Path) -> bool:
    """Whether `write_result` and the others here may write a path whose folder is there: a file is made beside it."""
    is_device = path.exists() and not (path.is_file() or path.is_dir())
    return os.access(path, os.W_OK) if is_device else os.access(path.absolute().parent, os.W_OK | os.X_OK)


@contextmanager
def naming(path: Path, temporary: Path | None = None) -> Iterator[None]:
    """Around what writes `path`: errors of the system name it, where they name nothing or a temporary path.

    A full disk names no file, and a library that writes may hide it in an error of its own.

    Args:
        path: which the user knows.
        temporary: file or folder that is written in its place.

    Raises:
        OSError: whatever the system said, with the path.
    """
    try:
        yield
    except Exception as error:
        said = _said_by_system(error)
        if said is None:
            raise
        if said.filename is None:
            said.filename = str(path)
        elif (found := Path(str(said.filename))).is_relative_to(temporary or path):
            said.filename = str(path / found.relative_to(temporary or path))
        if said is error:
            raise
        raise said from error


@contextmanager
def _made_beside(path: Path) -> Iterator[None]:
    """Around the making of a temporary file, whose own name says nothing to a user."""
    try:
        yield
    except OSError as error:
        error.filename = str(path)
        raise


def _said_by_system(error: BaseException) -> OSError | None:
    """The system's error in that of a library that writes: torch has it behind its own, others in their text."""
    if isinstance(error, OSError):
        return error if error.errno else None
    if told := _RUST_CODE.search(str(error)):
        return OSError(int(told[1]), os.strerror(int(told[1])))
    if not isinstance(error, RuntimeError):
        return None
    if code := next((code for code in _NO_ROOM if os.strerror(code) in str(error)), 0):  # as FAISS tells it
        return OSError(code, os.strerror(code))
    behind = error.__cause__ or error.__context__
    return None if behind is None else _said_by_system(behind)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` to write to; it takes the final name when the block ends well.

    Raises:
        OSError: the folder is missing or not writable, or the disk is full, whatever a library makes of that.
    """
    clear_orphans(path)
    with _made_beside(path):
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    temporary = Path(name)
    held = hold(temporary)
    try:
        with naming(path, temporary):
            yield temporary
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.chmod(0o666 & ~_umask())  # mkstemp makes it private; a shipped file is not
            temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    finally:
        if held is not None:
            held.release()


def write_atomically(path: Path, data: bytes) -> None:
    """Write a whole file under `atomic_path`."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_result(path: Path, data: bytes) -> None:
    """Write where a user asked for a result: a file as a whole; a pipe or a device is written to, never replaced.

    Raises:
        OSError: the folder is missing or not writable.
    """
    if path.exists() and not path.is_file():
        path.write_bytes(data)
    else:
        write_atomically(path, data)


@contextmanager
def atomic_folder(path: Path, *, replaces: bool = False) -> Iterator[Path]:
    """A temporary folder beside `path` to fill; it takes the final name when the block ends well.

    Args:
        path: not there, or an empty folder.
        replaces: whether it may be a folder with something in it, which is gone then.

    Raises:
        OSError: the folder above is missing or not writable, or `path` is no longer free.
    """
    path = path.absolute()  # "." lies in no folder by its name
    clear_orphans(path)
    with _made_beside(path):
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    held = hold(temporary)
    try:
        with naming(path, temporary):
            yield temporary
            if hasattr(os, "sync"):
                os.sync()  # one call for many files
            temporary.chmod(0o777 & ~_umask())
            with _set_aside(path) if replaces and path.is_dir() else nullcontext():
                if path.is_dir():
                    path.rmdir()  # the empty one, which not every system lets be replaced
                temporary.rename(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    finally:
        if held is not None:
            held.release()


@contextmanager
def _set_aside(path: Path) -> Iterator[None]:
    """A folder is out of the way in the block; then it is gone, or, if the block failed, back in its place."""
    aside = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        path.rename(aside / path.name)
        try:
            yield
        except BaseException:
            (aside / path.name).rename(path)
            raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask
