"""Images inside tars are found, read and refused like loose ones."""

import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from smn_cli.cache_folder import cache_folder
from smn_cli.data.images import tar as tar_module
from smn_cli.data.images.decode import read_image
from smn_cli.data.images.find import find_class_folders, find_images
from smn_cli.errors import DataError
from tests.conftest import write_images
from tests.data.images.tars import png, reason, write_tar

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


@pytest.mark.parametrize("form", FORMATS)
def test_an_image_in_a_tar_is_the_image_that_was_packed(tmp_path: Path, form: str) -> None:
    write_images(tmp_path / "loose", 5, size=12)
    names = ["000.png", "deep/er/001.png", "./002.png", "ä" * 40 + "/" + "long" * 20 + ".png", "d/e/f.PNG"]
    loose = sorted((tmp_path / "loose").iterdir())
    entries = {name: path.read_bytes() for name, path in zip(names, loose, strict=True)}
    beside = {"000.json": b"{}", "000.cls": b"1", "._000.png": b"x", ".hidden/a.png": b"x", "readme": b""}
    tar = write_tar(tmp_path / "shard.tar", {**entries, **beside}, format=FORMATS[form])
    found = find_images([tar])
    assert found == sorted(tmp_path / "shard.tar" / name for name in names)
    for name, path in zip(names, loose, strict=True):
        assert np.array_equal(np.asarray(read_image(tar / name)), np.asarray(read_image(path)))


def test_tars_are_found_by_name_in_folders_in_lists_and_each_image_once(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    first = write_tar(tmp_path / "a.tar", {"2.png": png(), "1.png": png()})
    second = write_tar(tmp_path / "sub" / "b.tar", {"1.png": png(), "folder/3.jpg": png()})
    images = [first / "1.png", first / "2.png", second / "1.png", second / "folder" / "3.jpg"]
    listed = tmp_path / "paths.txt"
    listed.write_text("a.tar\nsub/b.tar/1.png\n")
    assert find_images([tmp_path]) == images
    assert find_images([second, first, first / "1.png"]) == images
    assert find_images([listed]) == images[:3]
    assert find_images([listed, tmp_path]) == images


def test_a_run_can_name_its_images_again_in_a_list(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "a.tar", {"1.png": png(), "2.png": png()})
    (tmp_path / "images.txt").write_text(f"{tar}/2.png\n")
    assert find_images([tmp_path / "images.txt"]) == [tar / "2.png"]
    (tmp_path / "images.txt").write_text(f"{tar}/3.png\n")
    with pytest.raises(DataError, match=r"images\.txt line 1: .*3\.png is not a file"):
        find_images([tmp_path / "images.txt"])
    with pytest.raises(DataError, match=r"a\.tar/3\.png does not exist"):
        find_images([tar / "3.png"])


def test_a_tar_beside_loose_images_is_left_out_with_a_word(tmp_path: Path) -> None:
    write_images(tmp_path, 1)
    write_tar(tmp_path / "a.tar", {"1.png": png()})
    (tmp_path / "b.tar.gz").write_bytes(b"")
    notes: list[str] = []
    assert find_images([tmp_path], note=notes.append) == [tmp_path / "000.png"]
    assert "has images and archives (a.tar): those are left out; name them to use them" in notes[0]
    assert "compressed tars are left out (b.tar.gz)" in notes[1]


def test_class_folders_may_hold_tars(tmp_path: Path) -> None:
    write_images(tmp_path / "cat", 1)
    (tmp_path / "dog").mkdir()
    tar = write_tar(tmp_path / "dog" / "a.tar", {"1.png": png()})
    assert find_class_folders(tmp_path) == {"cat": [tmp_path / "cat" / "000.png"], "dog": [tar / "1.png"]}


@pytest.mark.parametrize("name", ["a.tar.gz", "a.tgz", "a.TAR.BZ2", "a.tar.xz", "a.tar.zst"])
def test_a_compressed_tar_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"anything")
    (tmp_path / "paths.txt").write_text(name)
    for where in (tmp_path / name, tmp_path, tmp_path / "paths.txt"):
        with pytest.raises(
            DataError, match="is compressed, so that no image in it can be read alone: unpack it, or re"
        ):
            find_images([where])


def test_other_compressed_files_are_no_tars(tmp_path: Path) -> None:
    (tmp_path / "a.gz").write_bytes(b"")
    with pytest.raises(DataError, match="no images in"):
        find_images([tmp_path])
    with pytest.raises(DataError, match="neither an image nor"):
        find_images([tmp_path / "a.gz"])


def test_a_tar_that_changed_is_indexed_again_and_one_that_vanished_is_told(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "a.tar", {"1.png": png(1)})
    assert read_image(tar / "1.png").getpixel((0, 0)) == (1, 1, 1)
    write_tar(tar, {"0.png": png(9), "1.png": png(2)})
    assert read_image(tar / "1.png").getpixel((0, 0)) == (2, 2, 2)
    assert reason(tar / "2.png") == "no such member in the tar"
    tar.unlink()
    assert reason(tar / "1.png") == "No such file or directory"


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[], list[Path]]:
    """Index files on disk, which small tars have here too; a new process has nothing in mind."""
    monkeypatch.setattr(tar_module, "MIN_MEMBERS", 0)
    monkeypatch.setenv("SMN_CACHE_HOME", str(tmp_path / "cache"))

    def files() -> list[Path]:
        tar_module._read_index.cache_clear()
        folder = cache_folder() / "index"
        return list(folder.iterdir()) if folder.exists() else []

    return files


def test_an_index_that_is_kept_spares_another_process_the_headers(
    tmp_path: Path, kept: Callable[[], list[Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    tar = write_tar(tmp_path / "a.tar", {"1.png": png(1), "/2.png": png()})
    find_images([tar])
    assert kept() == []  # it changed just now
    os.utime(tar, (1e9, 1e9))
    found = find_images([tar])
    assert len(kept()) == 1
    monkeypatch.setattr(tar_module, "read_members", None)
    assert find_images([tar]) == found
    assert read_image(tar / "1.png").getpixel((0, 0)) == (1, 1, 1)
    assert reason(tar / "2.png") == "its name in the tar is absolute or leads outside"
