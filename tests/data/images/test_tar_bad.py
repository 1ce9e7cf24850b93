"""No tar, however hostile or damaged, does more than raise a clear error or hold bad images."""

import contextlib
import os
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smn_cli.data.images import tar as tar_module
from smn_cli.data.images import tar_headers
from smn_cli.data.images.decode import read_image
from smn_cli.data.images.find import find_images
from smn_cli.data.images.tar_headers import read_members
from smn_cli.data.images.validate import check_images
from smn_cli.errors import DataError
from tests.data.images.tars import member, png, reason, write_tar


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
