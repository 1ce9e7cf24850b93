"""A file is written whole or not at all."""

import errno
import io
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from smn_cli.adapters.adapter import load_adapter
from smn_cli.atomic import atomic_folder, atomic_path, write_atomically
from smn_cli.errors import DataError
from tests.adapters.forging import toy_adapter


class PowerCut(BaseException):
    """Not an Exception, as a Ctrl-C is not."""


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


@pytest.mark.parametrize("failure", [OSError, PowerCut, KeyboardInterrupt])
def test_a_failing_write_leaves_the_old_file_and_no_temporary(failure: type[BaseException], tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"old")

    def write_half() -> None:
        with atomic_path(path) as temporary:
            temporary.write_bytes(b"ne")
            raise failure

    with pytest.raises(failure):
        write_half()
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["a.safetensors"]


def _torch_error() -> RuntimeError:
    """As `torch.save` fails where the disk is full: the system's own error is only its context."""
    error = RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 704 vs 598")
    error.__context__ = OSError(errno.EFBIG, "File too large")
    return error


@pytest.mark.parametrize("is_folder", [False, True])
@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (_torch_error, errno.EFBIG),
        (lambda: SafetensorError("Error while serializing: I/O error: File too large (os error 27)"), errno.EFBIG),
        (lambda: RuntimeError("Error in faiss: write error in .x: 0 != 1 (No space left on device)"), errno.ENOSPC),
    ],
)
def test_a_library_that_found_the_disk_full_is_told_as_the_system_says_it(
    failure: Callable[[], Exception], code: int, is_folder: bool, tmp_path: Path
) -> None:
    def write() -> None:
        with atomic_folder(tmp_path / "a") if is_folder else atomic_path(tmp_path / "a"):
            raise failure()

    with pytest.raises(OSError, match=os.strerror(code)) as error_info:
        write()
    assert (error_info.value.errno, error_info.value.filename) == (code, str(tmp_path / "a"))
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    "failure", [RuntimeError("a shape"), DataError("x.png cannot be read: I/O error"), ValueError()]
)
def test_other_errors_stay_what_they_are(failure: Exception, tmp_path: Path) -> None:
    def write() -> None:
        with atomic_path(tmp_path / "a"):
            raise failure

    with pytest.raises(type(failure)) as error_info:
        write()
    assert error_info.value is failure


def test_a_failing_first_write_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        write_atomically(tmp_path / "a", "no bytes")  # type: ignore[arg-type]
    assert names(tmp_path) == []


def test_until_the_block_ends_the_old_file_is_there(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    with atomic_path(path) as temporary:
        temporary.write_bytes(b"new")
        assert path.read_bytes() == b"old"
        assert temporary.parent == path.parent  # or the last step would be a copy
    assert path.read_bytes() == b"new"


def test_a_target_that_cannot_be_replaced_leaves_no_temporary(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(OSError, match="a"):
        write_atomically(tmp_path / "a", b"new")
    assert names(tmp_path) == ["a"]
    with pytest.raises(OSError, match="No such file"):
        write_atomically(tmp_path / "none" / "a", b"new")
    assert names(tmp_path) == ["a"]


def test_the_file_has_the_permissions_that_the_user_asked_for(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_atomically(tmp_path / "a", b"new")
    finally:
        assert os.umask(before) == 0o027
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


def test_saving_an_adapter_replaces_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    toy_adapter("lzma").save(path)
    toy_adapter("bits").save(path)
    assert load_adapter(path).header.codec == "bits"
    assert path.read_bytes() == toy_adapter("bits").to_bytes()
    assert names(tmp_path) == ["a.safetensors"]


def test_a_folder_takes_the_place_of_one_with_something_in_it_only_if_it_may(tmp_path: Path) -> None:
    path = tmp_path / "net"
    path.mkdir()
    (path / "old").write_text("old")
    with pytest.raises(OSError, match="net"), atomic_folder(path) as making:
        (making / "new").write_text("new")
    assert (names(tmp_path), names(path)) == (["net"], ["old"])
    with atomic_folder(path, replaces=True) as making:
        (making / "new").write_text("new")
        assert names(path) == ["old"]
    assert (names(tmp_path), names(path)) == (["net"], ["new"])


def test_a_folder_whose_successor_does_not_come_is_put_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "net"
    path.mkdir()
    (path / "old").write_text("old")
    rename = Path.rename

    def fail_for_the_new(self: Path, target: Path) -> Path:
        if (self / "new").exists():
            raise PowerCut
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_for_the_new)
    with pytest.raises(PowerCut), atomic_folder(path, replaces=True) as making:
        (making / "new").write_text("new")
    assert (names(tmp_path), names(path)) == (["net"], ["old"])


def full_by_safetensors(path: Path) -> None:
    raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")


def full_by_torch(path: Path) -> None:
    class Full(io.BytesIO):
        def write(self, data: object) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    torch.save({"a": torch.ones(99)}, Full())


def full_by_the_system(path: Path) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def full_with_its_name(path: Path) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


FULL = [full_by_safetensors, full_by_torch, full_by_the_system, full_with_its_name]


@pytest.mark.parametrize("fail", FULL)
def test_a_full_disk_is_told_with_the_file_that_was_asked_for(fail: Callable[[Path], None], tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left") as caught, atomic_path(tmp_path / "a") as temporary:
        fail(temporary)
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(tmp_path / "a"))
    told = pytest.raises(OSError, match="No space left")
    with told as caught, atomic_folder(tmp_path / "b") as making, atomic_path(making / "c") as temporary:
        fail(temporary)
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(tmp_path / "b" / "c"))
    assert names(tmp_path) == []


def test_an_error_of_no_system_stays_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="a mistake"), atomic_path(tmp_path / "a"):
        raise RuntimeError("a mistake")
    with pytest.raises(FileNotFoundError) as caught, atomic_path(tmp_path / "a"):
        (tmp_path / "other").read_bytes()
    assert caught.value.filename == str(tmp_path / "other")


def test_a_folder_that_is_not_there_is_told_with_the_file_that_was_asked_for(tmp_path: Path) -> None:
    for write in (atomic_path, atomic_folder):
        with pytest.raises(FileNotFoundError) as caught, write(tmp_path / "no" / "a"):
            pass
        assert caught.value.filename == str(tmp_path / "no" / "a")
