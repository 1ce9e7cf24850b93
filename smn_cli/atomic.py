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


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` to write to; it takes the final name when the block ends well.

    Raises:
        OSError: the folder is missing or not writable, or the disk is full, whatever a library makes of that.
    """
    clear_orphans(path)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    temporary = Path(name)
    held = hold(temporary)
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())  # mkstemp makes it private; a shipped file is not
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno and error.filename in (None, str(temporary)):
            error.filename = str(path)  # which the user knows; a full disk names no file at all
        _raise_refusal(error, path)
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
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    held = hold(temporary)
    try:
        yield temporary
        if hasattr(os, "sync"):
            os.sync()  # one call for many files
        temporary.chmod(0o777 & ~_umask())
        with _set_aside(path) if replaces and path.is_dir() else nullcontext():
            if path.is_dir():
                path.rmdir()  # the empty one, which not every system lets be replaced
            temporary.rename(path)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        _raise_refusal(error, path)
        raise
    finally:
        if held is not None:
            held.release()


def _raise_refusal(error: BaseException, path: Path) -> None:
    """Raise what the system said, if a library made an error of its own of it."""
    code = _refusal_in(error)
    if code is not None:
        raise OSError(code, os.strerror(code), str(path)) from None


def _refusal_in(error: BaseException) -> int | None:
    """The system's number of "no more bytes" in an error of torch, safetensors or FAISS; None if it is another one."""
    if isinstance(error, OSError) or not isinstance(error, Exception):
        return None
    text = str(error)
    codes = [int(number) for number in _RUST_CODE.findall(text)]
    if isinstance(error, RuntimeError):
        behind = error.__cause__ or error.__context__
        codes += [behind.errno] if isinstance(behind, OSError) and behind.errno else []
        codes += [code for code in _NO_ROOM if os.strerror(code) in text]
    return next((code for code in codes if code in _NO_ROOM), None)


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
