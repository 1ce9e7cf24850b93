"""Images inside tars are found, read and refused like loose ones; no tar, however hostile, does more harm than that."""

import contextlib
import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from smn_cli.cache_folder import cache_folder
from smn_cli.data.images import tar as tar_module
from smn_cli.data.images import tar_headers
from smn_cli.data.images.decode import BadImageError, read_image
from smn_cli.data.images.find import find_class_folders, find_images
from smn_cli.data.images.tar_headers import read_members
from smn_cli.data.images.validate import check_images
from smn_cli.errors import DataError
from tests.conftest import write_images

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


def png(grey: int = 100) -> bytes:
    """A small image of one grey."""
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (grey, grey, grey)).save(buffer, "png")
    return buffer.getvalue()


def member(name: str, **fields: object) -> tarfile.TarInfo:
    """A header; fields override what it says."""
    info = tarfile.TarInfo(name)
    for field, value in fields.items():
        setattr(info, field, value)
    return info


def write_tar(path: Path, entries: dict[str, bytes] | list[tuple[tarfile.TarInfo, bytes]], **options: int) -> Path:
    """A tar of named bytes, or of headers that say what they like."""
    listed = [(member(n), data) for n, data in entries.items()] if isinstance(entries, dict) else entries
    with tarfile.open(path, "w", format=options.get("format", tarfile.PAX_FORMAT)) as tar:
        for info, data in listed:
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def reason(path: Path) -> str:
    """Why smn cannot use an image."""
    with pytest.raises(BadImageError) as error_info:
        read_image(path)
    assert "\n" not in str(error_info.value)
    return str(error_info.value)


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


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (tarfile.SYMTYPE, "a symbolic link in the tar: not followed"),
        (tarfile.LNKTYPE, "a hard link in the tar: not followed"),
        (tarfile.CHRTYPE, "a device in the tar"),
        (tarfile.BLKTYPE, "a device in the tar"),
        (tarfile.FIFOTYPE, "a pipe in the tar"),
        (b"Z", "of an unknown type in the tar"),
    ],
)
def test_members_that_are_no_files_are_bad_images(tmp_path: Path, kind: bytes, expected: str) -> None:
    entries = [(member("1.png"), png()), (member("2.png", type=kind, linkname="1.png"), b""), (member("3.png"), png(3))]
    tar = write_tar(tmp_path / "a.tar", entries)
    assert reason(tar / "2.png") == expected
    checked = check_images(find_images([tar]), max_bad=0.5)
    assert checked.good == [tar / "1.png", tar / "3.png"]
    assert checked.bad_lines() == [f"{tar}/2.png\t{expected}"]


def test_a_link_with_a_long_target_does_not_hide_what_follows(tmp_path: Path) -> None:
    link = member("1.png", type=tarfile.SYMTYPE, linkname="far/" * 50)
    tar = write_tar(tmp_path / "a.tar", [(link, b""), (member("2.png"), png())], format=tarfile.GNU_FORMAT)
    assert find_images([tar]) == [tar / "1.png", tar / "2.png"]
    assert read_image(tar / "2.png").size == (4, 4)


def test_a_folder_with_the_name_of_an_image_is_none(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "a.tar", [(member("1.png", type=tarfile.DIRTYPE), b""), (member("1.png/2.png"), png())])
    assert find_images([tar]) == [tar / "1.png" / "2.png"]


@pytest.mark.parametrize(
    ("name", "label"),
    [("/etc/1.png", "etc/1.png"), ("../../1.png", "__/__/1.png"), ("a/../../1.png", "a/__/__/1.png")],
)
def test_names_that_lead_outside_name_a_bad_image_inside(tmp_path: Path, name: str, label: str) -> None:
    tar = write_tar(tmp_path / "a.tar", {name: png(), "2.png": png()})
    assert find_images([tar]) == sorted([tar / label, tar / "2.png"])
    assert reason(tar / label) == "its name in the tar is absolute or leads outside"


def test_control_characters_in_a_name_make_a_bad_image_of_one_line(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "a.tar", {"1\n/etc/passwd.png": png(), "2\x1b[2J.png": png()})
    assert [path.relative_to(tar).as_posix() for path in find_images([tar])] == ["1?/etc/passwd.png", "2?[2J.png"]
    assert reason(tar / "2?[2J.png") == "control characters in its name in the tar"


def test_of_equal_names_the_last_one_counts_as_for_tar(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "a.tar", [(member("1.png"), png(1)), (member("./1.png"), png(200))])
    assert find_images([tar]) == [tar / "1.png"]
    assert read_image(tar / "1.png").getpixel((0, 0)) == (200, 200, 200)


def test_sparse_members_are_bad_images_and_those_after_them_are_found(tmp_path: Path) -> None:
    records = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "1.png"}
    new = member("1.png", pax_headers=records)
    tar = write_tar(tmp_path / "a.tar", [(new, bytes(600)), (member("2.png"), png())])
    assert reason(tar / "1.png").startswith("a sparse member of the tar")
    assert read_image(tar / "2.png").size == (4, 4)
    old = bytearray(member("1.png", type=tarfile.GNUTYPE_SPARSE, size=512).tobuf(tarfile.GNU_FORMAT))
    old[482] = 1  # one more block of its map follows, and says that it is the last
    old[148:156] = b"%06o\0 " % (sum(old[:148]) + 8 * 32 + sum(old[156:512]))
    (tmp_path / "b.tar").write_bytes(bytes(old) + bytes(512) + bytes(512) + tar.read_bytes())
    assert reason(tmp_path / "b.tar" / "1.png").startswith("a sparse member of the tar")
    assert read_image(tmp_path / "b.tar" / "2.png").size == (4, 4)


@pytest.mark.parametrize("keep", [100, 550, 1030, 4000])
def test_a_tar_that_is_cut_short_is_refused(tmp_path: Path, keep: int) -> None:
    data = write_tar(tmp_path / "a.tar", {"1.png": png(), "2.png": bytes(3000)}, format=tarfile.USTAR_FORMAT)
    data.write_bytes(data.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"a\.tar (is cut short|is damaged|is not a tar)"):
        find_images([data])


def test_a_tar_without_its_last_blocks_is_read(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "a.tar", {"1.png": png()}, format=tarfile.USTAR_FORMAT)
    tar.write_bytes(tar.read_bytes()[: 512 + len(png())])
    assert read_image(find_images([tar])[0]).size == (4, 4)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", r"a\.tar is empty: expected a tar"),
        (b"\x1f\x8b" + bytes(1000), r"a\.tar is not a tar file, compressed, or damaged"),
        (b"text " * 200, r"a\.tar is not a tar file"),
        (bytes(10240), "no images in"),
    ],
)
def test_what_is_no_tar_is_refused(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "a.tar").write_bytes(data)
    with pytest.raises(DataError, match=message):
        find_images([tmp_path / "a.tar"])


def test_a_pipe_under_the_name_of_a_tar_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.tar")
    with pytest.raises(DataError, match="is a pipe, a socket or a device"):
        find_images([tmp_path / "a.tar"])


def test_sizes_that_go_backwards_are_refused(tmp_path: Path) -> None:
    header = bytearray(member("1.png").tobuf(tarfile.GNU_FORMAT))
    header[124:136] = b"\xff" * 11 + b"\x00"  # -256 in base 256: the next header would be before this one
    header[148:156] = b"%06o\0 " % (sum(header[:148]) + 8 * 32 + sum(header[156:]))
    (tmp_path / "a.tar").write_bytes(bytes(header) + bytes(1024))
    with pytest.raises(DataError, match="is cut short"):
        find_images([tmp_path / "a.tar"])


def test_an_extended_header_that_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    for kind in (tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE):
        header = member("x", type=kind, size=1 << 33).tobuf(tarfile.GNU_FORMAT)
        with (tmp_path / "a.tar").open("wb") as file:
            file.write(header)
            file.truncate(1 << 34)  # takes no room on the disk
        with pytest.raises(DataError, match="an extended header of 8,589,934,592 bytes"):
            read_members(tmp_path / "a.tar")


@pytest.mark.parametrize("content", [b"9999 path=x\n", b"path=x\n", b"12 path=x.png", b"11 size=ab\n", b"7 path\n"])
def test_an_unreadable_extended_header_is_refused(tmp_path: Path, content: bytes) -> None:
    header = member("x", type=tarfile.XHDTYPE, size=len(content)).tobuf(tarfile.USTAR_FORMAT)
    (tmp_path / "a.tar").write_bytes(header + content.ljust(512, b"\0") + bytes(1024))
    with pytest.raises(DataError, match="is damaged: an unreadable extended header at byte 0"):
        read_members(tmp_path / "a.tar")


def test_more_images_than_are_kept_in_mind_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tar_headers, "MAX_MEMBERS", 3)
    tar = write_tar(tmp_path / "a.tar", {f"{number}.png": b"" for number in range(4)})
    with pytest.raises(DataError, match="has more than 3 images: split it into shards"):
        find_images([tar])


def test_a_member_larger_than_any_image_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tar_module, "MAX_MEMBER_BYTES", 10)
    assert "bytes: more than 10" in reason(write_tar(tmp_path / "a.tar", {"1.png": png()}) / "1.png")


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


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4095), st.integers(0, 255)), min_size=1, max_size=4), st.integers(0, 4096))
def test_damaged_tars_raise_nothing_but_data_errors(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int]], keep: int
) -> None:
    tar = tmp_path_factory.mktemp("damaged") / "a.tar"
    data = bytearray(write_tar(tar, {"ä" * 60 + ".png": png(), "2.png": png(), "b" * 101 + ".jpg": b"x"}).read_bytes())
    for position, value in changes:
        data[position] = value
    tar.write_bytes(data[: 4096 + keep])
    messages = []
    with contextlib.suppress(DataError):
        messages = [str(path) for path in find_images([tar])]
        assert all(message.startswith(f"{tar}/") for message in messages)
        messages += check_images([Path(message) for message in messages], max_bad=1).bad_lines()
    assert not any("\n" in message for message in messages)
