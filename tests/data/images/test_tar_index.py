"""What is kept of a tar comes back as it was or not at all, and what nobody uses goes."""

import os
import time
from pathlib import Path

import pytest

from smn_cli.cache_folder import cache_folder
from smn_cli.data.images.tar_index import KEPT_FOR_S, SETTLED_NS, is_settled, load_index, save_index


def index_files() -> list[Path]:
    """All that is kept."""
    return list((cache_folder() / "index").iterdir())


def test_a_change_just_before_the_look_is_not_trusted() -> None:
    assert is_settled(0, SETTLED_NS + 1)
    assert not is_settled(0, SETTLED_NS)
    assert not is_settled(10**19, 0)  # a clock of a server that is ahead


def test_an_index_comes_back_and_is_its_owners_alone() -> None:
    save_index("/a.tar", {"1.png": [512, 70], "2.png": "a reason"})
    assert load_index("/a.tar") == {"1.png": [512, 70], "2.png": "a reason"}
    assert load_index("/b.tar") is None
    assert (cache_folder() / "index").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "folder"])
def test_a_damaged_index_is_ignored(damage: str) -> None:
    save_index("/a.tar", ["1.png"])
    (kept,) = index_files()
    data = kept.read_bytes()
    if damage == "folder":
        kept.unlink()
        kept.mkdir()
    else:
        kept.write_bytes({"cut": data[:-3], "flip": data.replace(b"1.png", b"2.png"), "empty": b""}[damage])
    assert load_index("/a.tar") is None
    save_index("/a.tar", ["3.png"])
    assert load_index("/a.tar") == (None if damage == "folder" else ["3.png"])


def test_a_cache_folder_that_cannot_be_written_keeps_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("SMN_CACHE_HOME", str(tmp_path / "file"))
    save_index("/a.tar", [1])
    assert load_index("/a.tar") is None


def test_an_index_without_use_is_removed_when_another_is_written() -> None:
    save_index("/one", [1])
    save_index("/two", [2])
    assert (load_index("/one"), load_index("/two"), load_index("/three")) == ([1], [2], None)
    then = time.time() - KEPT_FOR_S - 60
    for kept in index_files():
        os.utime(kept, (then, then))
    assert load_index("/one") == [1]  # which is a use
    save_index("/three", [3])
    assert (load_index("/one"), load_index("/two"), load_index("/three")) == ([1], None, [3])
