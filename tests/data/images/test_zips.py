"""Images inside zips are those that were packed; no zip does more harm than a bad image or one line."""

import contextlib
import os
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smn_cli.cache_folder import cache_folder
from smn_cli.data.images import zips
from smn_cli.data.images.decode import BadImageError, read_image
from smn_cli.data.images.find import find_class_folders, find_images
from smn_cli.data.images.validate import check_images
from smn_cli.errors import DataError
from tests.conftest import write_images
from tests.data.images.tars import png, reason

METHODS = {"stored": zipfile.ZIP_STORED, "deflated": zipfile.ZIP_DEFLATED}
CENTRAL, ENCRYPTED = b"PK\1\2", 1


def write_zip(path: Path, entries: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    """A zip of named bytes."""
    with zipfile.ZipFile(path, "w", method) as file:
        for name, data in entries.items():
            file.writestr(name, data)
    return path


def patched(path: Path, offset: int, form: str, value: int) -> Path:
    """Change a field in the directory's first entry."""
    data = bytearray(path.read_bytes())
    struct.pack_into(form, data, data.index(CENTRAL) + offset, value)
    path.write_bytes(bytes(data))
    return path


@pytest.mark.parametrize("method", METHODS)
def test_an_image_in_a_zip_is_the_image_that_was_packed(tmp_path: Path, method: str) -> None:
    write_images(tmp_path / "loose", 4, size=12)
    names = ["000.png", "deep/er/001.png", "ä" * 40 + "/" + "long" * 20 + ".png", "d/f.PNG"]
    loose = sorted((tmp_path / "loose").iterdir())
    entries = {name: path.read_bytes() for name, path in zip(names, loose, strict=True)}
    beside = {"000.json": b"{}", "__MACOSX/._000.png": b"x", ".hidden/a.png": b"x", "folder.png/": b"", "readme": b""}
    file = write_zip(tmp_path / "photos.ZIP", {**entries, **beside}, METHODS[method])
    assert find_images([file]) == sorted(file / name for name in names)
    for name, path in zip(names, loose, strict=True):
        assert np.array_equal(np.asarray(read_image(file / name)), np.asarray(read_image(path)))


def test_zips_are_found_in_folders_in_lists_and_among_classes_but_not_beside_images(tmp_path: Path) -> None:
    (tmp_path / "dog").mkdir()
    file = write_zip(tmp_path / "dog" / "b.zip", {"2.png": png(), "a/1.png": png()})
    images = [file / "2.png", file / "a" / "1.png"]
    assert find_images([tmp_path]) == find_images([file, tmp_path]) == images
    assert find_class_folders(tmp_path) == {"dog": images}
    (tmp_path / "images.txt").write_text("dog/b.zip/a/1.png\n")
    assert find_images([tmp_path / "images.txt"]) == images[1:]
    write_images(tmp_path / "cat", 1)
    notes: list[str] = []
    assert find_images([tmp_path], note=notes.append) == [tmp_path / "cat" / "000.png"]
    assert "has images and archives (b.zip)" in notes[0]


def test_what_a_member_says_beside_its_name_is_passed_over(tmp_path: Path) -> None:
    entry = zipfile.ZipInfo("1.png")
    entry.extra = struct.pack("<HH4s", 0x9999, 4, b"more")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr(entry, png(7))
    assert read_image(tmp_path / "a.zip" / "1.png").getpixel((0, 0)) == (7, 7, 7)


def test_a_zip_with_something_before_it_is_read(tmp_path: Path) -> None:
    file = write_zip(tmp_path / "a.zip", {"1.png": png(7)})
    file.write_bytes(b"#!/bin/sh\nexit\n" + file.read_bytes())
    assert read_image(file / "1.png").getpixel((0, 0)) == (7, 7, 7)


@pytest.mark.parametrize(
    ("name", "label"), [("/etc/1.png", "etc/1.png"), ("../../1.png", "__/__/1.png"), ("a/\x1b1.png", "a/?1.png")]
)
def test_names_that_lead_outside_name_a_bad_image_inside(tmp_path: Path, name: str, label: str) -> None:
    file = write_zip(tmp_path / "a.zip", {name: png(), "2.png": png()})
    assert find_images([file]) == sorted([file / label, file / "2.png"])
    assert "its name in the zip" in reason(file / label)
    assert check_images(find_images([file]), max_bad=0.5).good == [file / "2.png"]


@pytest.mark.parametrize(
    ("offset", "form", "value", "expected"),
    [
        (8, "<H", ENCRYPTED, "encrypted in the zip: unpack it, or pack it without a password"),
        (10, "<H", zipfile.ZIP_LZMA, "packed in the zip by method 14: expected stored or deflated"),
        (16, "<I", 1, "damaged in the zip"),  # the checksum
        (20, "<I", 5, "damaged in the zip"),  # packed bytes: too few
        (20, "<I", 2_000_000_000, "2,000,000,000 bytes: more than 1,000,000,000"),
        (24, "<I", 10, "damaged in the zip"),  # the stream gives more
        (24, "<I", 500_000_000, "damaged in the zip"),  # the stream gives less
        (24, "<I", 2_000_000_000, "2,000,000,000 bytes: more than 1,000,000,000"),
        (38, "<I", 0o120777 << 16, "a symbolic link in the zip: not followed"),
        (42, "<I", 3, "damaged in the zip"),  # no header there
    ],
)
def test_what_a_directory_says_wrongly_makes_a_bad_image(
    tmp_path: Path, offset: int, form: str, value: int, expected: str
) -> None:
    file = patched(write_zip(tmp_path / "a.zip", {"1.png": png(), "2.png": png()}), offset, form, value)
    assert find_images([file]) == [file / "1.png", file / "2.png"]
    assert reason(file / "1.png") == expected
    assert read_image(file / "2.png").size == (4, 4)


def test_a_directory_that_lies_about_its_place_makes_bad_images(tmp_path: Path) -> None:
    """Members would lie before the file's beginning."""
    file = write_zip(tmp_path / "a.zip", {"1.png": png()})
    data = bytearray(file.read_bytes())
    struct.pack_into("<I", data, data.index(b"PK\5\6") + 16, len(data) + 1000)
    file.write_bytes(data)
    assert find_images([file]) == [file / "1.png"]
    assert reason(file / "1.png") == "damaged in the zip"


def test_a_member_without_a_name_is_passed_over(tmp_path: Path) -> None:
    """A name ends at its first zero byte."""
    file = write_zip(tmp_path / "a.zip", {"0.png": b"x", "folder.png/": b"", "1.png": png()})
    file.write_bytes(file.read_bytes().replace(b"0.png", b"\0.png"))
    assert find_images([file]) == [file / "1.png"]


def test_a_bomb_takes_no_more_memory_than_it_owns_up_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = patched(write_zip(tmp_path / "a.zip", {"1.png": bytes(50_000_000)}), 24, "<I", 1000)
    given: list[int] = []
    inflated = zips._inflated

    def counted(packed: bytes, size_bytes: int) -> bytes:
        data = inflated(packed, size_bytes)
        given.append(len(data))
        return data

    monkeypatch.setattr(zips, "_inflated", counted)
    assert reason(file / "1.png") == "damaged in the zip"
    assert given == [1001]


@pytest.mark.parametrize("data", [b"", b"text " * 200, b"PK\5\6" + bytes(5), b"PK\3\4" + bytes(1000)])
def test_what_is_no_zip_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(DataError, match=r"a\.zip is not a zip file, damaged or cut short"):
        find_images([tmp_path / "a.zip"])


def test_more_images_than_are_kept_in_mind_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zips, "MAX_MEMBERS", 3)
    file = write_zip(tmp_path / "a.zip", {f"{number}.png": b"" for number in range(4)})
    with pytest.raises(DataError, match="has more than 3 images: split it"):
        find_images([file])


def test_a_zip_that_changed_is_read_again_and_one_that_vanished_is_told(tmp_path: Path) -> None:
    file = write_zip(tmp_path / "a.zip", {"1.png": png(1)})
    assert read_image(file / "1.png").getpixel((0, 0)) == (1, 1, 1)
    write_zip(file, {"0.png": png(9), "1.png": png(2)})
    assert read_image(file / "1.png").getpixel((0, 0)) == (2, 2, 2)
    assert reason(file / "2.png") == "no such member in the zip"
    file.unlink()
    assert reason(file / "1.png") == "No such file or directory"


def test_an_index_that_is_kept_spares_another_process_the_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zips, "MIN_MEMBERS", 0)
    monkeypatch.setenv("SMN_CACHE_HOME", str(tmp_path / "cache"))
    file = write_zip(tmp_path / "a.zip", {"1.png": png(1), "/2.png": png()})
    os.utime(file, (1e9, 1e9))
    found = find_images([file])
    assert len(list((cache_folder() / "index").iterdir())) == 1
    zips._read_index.cache_clear()
    monkeypatch.setattr(zips, "_read_members", None)
    assert find_images([file]) == found
    assert read_image(file / "1.png").getpixel((0, 0)) == (1, 1, 1)
    assert reason(file / "2.png") == "its name in the zip is absolute or leads outside"


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 450), st.integers(0, 255)), min_size=1, max_size=4), st.integers(0, 460))
def test_damaged_zips_raise_nothing_but_data_errors(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int]], cut: int
) -> None:
    file = tmp_path_factory.mktemp("damaged") / "a.zip"
    data = bytearray(write_zip(file, {"ä.png": png(), "2.png": png(), "b.jpg": b"x"}).read_bytes())
    for position, value in changes:
        data[position % len(data)] = value
    file.write_bytes(data[: len(data) - max(0, cut - 300)])
    messages = []
    with contextlib.suppress(DataError):
        messages = [str(path) for path in find_images([file])]
        assert all(message.startswith(f"{file}/") for message in messages)
        with contextlib.suppress(BadImageError):
            messages += check_images([Path(message) for message in messages], max_bad=1).bad_lines()
    assert not any("\n" in message for message in messages)
