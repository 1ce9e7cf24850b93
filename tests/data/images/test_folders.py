"""An index that is kept gives what a fresh walk gives, whatever happened to the files, the folders or the index."""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smn_cli.data.images import folders
from smn_cli.data.images.extensions import IMAGE_SUFFIXES
from smn_cli.data.images.folders import list_files
from smn_cli.data.images.tar_index import KEPT_FOR_S, SETTLED_NS, cache_folder, is_settled, load_index, save_index
from smn_cli.errors import DataError


@pytest.fixture(autouse=True)
def _kept_from_the_first_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(folders, "MIN_FILES", 0)
    monkeypatch.setenv("SMN_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the folders that were listed."""
    seen: list[str] = []
    scandir = os.scandir

    def note(path: str) -> Iterator[os.DirEntry[str]]:
        seen.append(Path(path).name)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", note)
    return seen


def touch(root: Path, *names: str) -> None:
    """Empty files."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")


def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on it is an hour later."""
    real = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: real() + 3600 * 10**9)


def fresh(root: Path) -> list[str]:
    """The slow way, by os.walk, in the order that is promised."""
    found = []
    for folder, names, files in os.walk(root):
        names[:] = sorted(name for name in names if not name.startswith("."))
        found += [
            (Path(folder) / name).relative_to(root).as_posix()
            for name in sorted(files)
            if not name.startswith(".") and Path(name).suffix.lower() in IMAGE_SUFFIXES
        ]
    return found


def test_folders_that_did_not_change_are_not_listed_again(
    tmp_path: Path, listed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "images"
    touch(root, "a/1.png", "b/2.png", "b/c/3.jpg")
    later(monkeypatch)
    assert list_files(root, IMAGE_SUFFIXES) == ["a/1.png", "b/2.png", "b/c/3.jpg"]
    assert listed == ["images", "a", "b", "c"]
    listed.clear()
    assert list_files(root, IMAGE_SUFFIXES) == ["a/1.png", "b/2.png", "b/c/3.jpg"]
    assert listed == []
    touch(root, "b/0.png")
    assert list_files(root, IMAGE_SUFFIXES) == ["a/1.png", "b/0.png", "b/2.png", "b/c/3.jpg"]
    assert listed == ["b"]


def test_a_folder_that_changed_just_before_it_was_listed_is_listed_again(tmp_path: Path, listed: list[str]) -> None:
    touch(tmp_path / "images", "1.png")
    list_files(tmp_path / "images", IMAGE_SUFFIXES)
    list_files(tmp_path / "images", IMAGE_SUFFIXES)
    assert listed == ["images", "images"]
    assert is_settled(0, SETTLED_NS + 1)
    assert not is_settled(0, SETTLED_NS)
    assert not is_settled(10**19, 0)  # a clock of a server that is ahead


def test_a_change_that_keeps_the_time_of_change_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "images"
    touch(root, "1.png")
    os.utime(root, (1e9, 1e9))
    later(monkeypatch)
    list_files(root, IMAGE_SUFFIXES)
    time.sleep(0.02)  # a tick of the file system's clock
    touch(root, "2.png")
    os.utime(root, (1e9, 1e9))  # as rsync does
    assert list_files(root, IMAGE_SUFFIXES) == ["1.png", "2.png"]


def test_few_files_are_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "MIN_FILES", 2)
    touch(tmp_path / "images", "1.png")
    list_files(tmp_path / "images", IMAGE_SUFFIXES)
    assert not cache_folder().exists()
    touch(tmp_path / "images", "2.png")
    list_files(tmp_path / "images", IMAGE_SUFFIXES)
    assert len(list((cache_folder() / "index").iterdir())) == 1
    assert (cache_folder() / "index").stat().st_mode & 0o777 == 0o700


def _make_file(root: Path, first: str, _second: str) -> None:
    touch(root, first + ".png")


def _make_other_file(root: Path, first: str, _second: str) -> None:
    touch(root, first + ".txt")


def _remove(root: Path, first: str, _second: str) -> None:
    shutil.rmtree(root / first, ignore_errors=True)
    (root / (first + ".png")).unlink(missing_ok=True)


def _rename_folder(root: Path, first: str, second: str) -> None:
    old, new = root / first, root / second
    if old.is_dir() and not new.exists() and new.parent.is_dir() and not new.is_relative_to(old):
        old.rename(new)


def _rename_file(root: Path, first: str, second: str) -> None:
    if (root / (first + ".png")).is_file() and (root / second).parent.is_dir():
        (root / (first + ".png")).rename(root / (second + ".png"))


def _link(root: Path, first: str, second: str) -> None:
    path = root / (first + "-link.png")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.symlink_to(root / second)


ACTIONS = [_make_file, _make_file, _make_other_file, _remove, _rename_folder, _rename_file, _link]
NAMES = ["a", "b", "a/a", "a/b", "b/a", "a/a/c", "b/a/.d", ".e/a"]
CHANGES = st.lists(
    st.lists(st.tuples(st.sampled_from(ACTIONS), st.sampled_from(NAMES), st.sampled_from(NAMES)), max_size=4),
    min_size=1,
    max_size=6,
)


@settings(max_examples=60, deadline=None)
@given(rounds=CHANGES)
def test_after_any_changes_the_kept_index_gives_what_a_fresh_walk_gives(
    tmp_path_factory: pytest.TempPathFactory,
    rounds: list[list[tuple[Callable[[Path, str, str], None], str, str]]],
) -> None:
    root = tmp_path_factory.mktemp("images")
    ahead_ns = 0
    real = time.time_ns
    with pytest.MonkeyPatch.context() as patch:
        # looks an hour ahead of the files: every listing counts as settled, and only the stamps show a change
        patch.setattr(time, "time_ns", lambda: real() + ahead_ns)
        for number, changes in enumerate(rounds):
            for change, first, second in changes:
                change(root, first, second)
            assert list_files(root, IMAGE_SUFFIXES) == fresh(root)
            ahead_ns = 0 if number % 2 else 3600 * 10**9
            time.sleep(0.005)  # a tick of the file system's clock, which the rule of two seconds stands in for


def test_a_link_whose_target_becomes_a_folder_is_no_file_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, target = tmp_path / "images", tmp_path / "target"
    root.mkdir()
    (root / "a.png").symlink_to(target)
    later(monkeypatch)
    assert list_files(root, IMAGE_SUFFIXES) == ["a.png"]
    target.mkdir()
    assert list_files(root, IMAGE_SUFFIXES) == []


def test_other_suffixes_do_not_meet_the_index_of_these(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path / "images", "1.png", "2.tar")
    later(monkeypatch)
    assert list_files(tmp_path / "images", frozenset({".png"})) == ["1.png"]
    assert list_files(tmp_path / "images", frozenset({".tar"})) == ["2.tar"]


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "folder"])
def test_a_damaged_index_is_ignored_and_made_anew(
    tmp_path: Path, damage: str, listed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "images"
    touch(root, "1.png")
    later(monkeypatch)
    list_files(root, IMAGE_SUFFIXES)
    (kept,) = (cache_folder() / "index").iterdir()
    data = kept.read_bytes()
    if damage == "folder":
        kept.unlink()
        kept.mkdir()
    else:
        flipped = data.replace(b"1.png", b"2.png")
        kept.write_bytes({"cut": data[:-3], "flip": flipped, "empty": b""}[damage])
    assert list_files(root, IMAGE_SUFFIXES) == ["1.png"]
    assert listed == ["images", "images"]


def test_a_cache_folder_that_cannot_be_written_costs_nothing_but_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, "images/1.png", "file")
    monkeypatch.setenv("SMN_CACHE_HOME", str(tmp_path / "file"))
    assert list_files(tmp_path / "images", IMAGE_SUFFIXES) == ["1.png"]


def test_an_index_without_use_is_removed_when_another_is_written(tmp_path: Path) -> None:
    save_index("/one", [1])
    save_index("/two", [2])
    assert (load_index("/one"), load_index("/two"), load_index("/three")) == ([1], [2], None)
    then = time.time() - KEPT_FOR_S - 60
    for kept in (cache_folder() / "index").iterdir():
        os.utime(kept, (then, then))
    assert load_index("/one") == [1]  # which is a use
    save_index("/three", [3])
    assert (load_index("/one"), load_index("/two"), load_index("/three")) == ([1], None, [3])


def test_without_a_wish_the_index_lies_in_the_cache_folder_of_the_home(monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_folder() == Path(os.environ["SMN_CACHE_HOME"])
    monkeypatch.delenv("SMN_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert cache_folder() == Path("/caches/smn")
    for wish in ("", "relative/folder"):
        monkeypatch.setenv("XDG_CACHE_HOME", wish)
        assert cache_folder() == Path("/home/somebody/.cache/smn")


def test_names_that_are_no_text_survive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "images"
    touch(root, os.fsdecode(b"\xff\xfe.png"), "ä b.png", "tab\t.png")
    later(monkeypatch)
    first = list_files(root, IMAGE_SUFFIXES)
    assert len(first) == 3
    assert list_files(root, IMAGE_SUFFIXES) == first


def test_a_folder_that_vanished_is_refused_although_it_was_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "images"
    touch(root, "1.png")
    later(monkeypatch)
    list_files(root, IMAGE_SUFFIXES)
    shutil.rmtree(root)
    with pytest.raises(DataError, match="images cannot be searched for images: No such file"):
        list_files(root, IMAGE_SUFFIXES)
