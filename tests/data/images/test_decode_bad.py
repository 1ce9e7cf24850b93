"""Unreadable and absurd files are refused with a reason, counted, and stop a run when they are too many."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from smn_cli.data.images.decode import MAX_PIXELS, BadImageError, read_image
from smn_cli.data.images.validate import check_images
from smn_cli.errors import DataError
from tests.conftest import write_images


def png_claiming(width: int, height: int) -> bytes:
    """A well-formed PNG of 70 bytes that says it is that large."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


def noise() -> Image.Image:
    """An image whose compressed form is long enough to be cut in the middle."""
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (48, 48, 3), dtype=np.uint8))


def reason(path: Path) -> str:
    """Why smn cannot use a file: one line that does not repeat the path."""
    with pytest.raises(BadImageError) as error_info:
        read_image(path)
    message = str(error_info.value)
    assert "\n" not in message
    assert str(path.parent) not in message
    return message


def test_an_empty_file_is_bad(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"")
    assert "not a readable JPEG" in reason(tmp_path / "a.jpg")


def test_text_under_an_image_name_is_bad(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_text("<html>404 not found</html>")
    assert "not a readable JPEG" in reason(tmp_path / "a.jpg")


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "bmp", "gif", "tiff"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_truncated_file_is_bad(tmp_path: Path, suffix: str, share: float) -> None:
    path = tmp_path / f"a.{suffix}"
    noise().save(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    assert reason(path)


def test_a_missing_file_and_a_folder_are_bad(tmp_path: Path) -> None:
    (tmp_path / "folder.png").mkdir()
    assert reason(tmp_path / "gone.png") == "No such file or directory"
    assert reason(tmp_path / "folder.png") == "Is a directory"


@pytest.mark.parametrize("side", [50_000, 10_001])
def test_a_decompression_bomb_is_refused_before_it_is_decoded(tmp_path: Path, side: int) -> None:
    (tmp_path / "bomb.png").write_bytes(png_claiming(side, side))
    assert "pixels" in reason(tmp_path / "bomb.png")


def test_the_largest_image_allowed_is_refused_for_another_reason(tmp_path: Path) -> None:
    side = int(MAX_PIXELS**0.5)
    (tmp_path / "large.png").write_bytes(png_claiming(side, side))
    assert "pixels" not in reason(tmp_path / "large.png")  # it is truncated, which only decoding shows


@pytest.mark.parametrize("size", [(1, 1), (1, 400), (400, 1)])
def test_an_image_of_one_pixel_across_is_too_small(tmp_path: Path, size: tuple[int, int]) -> None:
    Image.new("RGB", size).save(tmp_path / "a.png")
    assert reason(tmp_path / "a.png") == f"{size[0]} x {size[1]} pixels: too small"


def test_two_pixels_across_are_enough(tmp_path: Path) -> None:
    Image.new("RGB", (2, 2), "red").save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").size == (2, 2)


def test_postscript_under_an_image_name_never_reaches_ghostscript(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "bin" / "gs"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", None)  # it looks for the program once
    (tmp_path / "a.png").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n")
    assert "not a readable JPEG" in reason(tmp_path / "a.png")
    assert not (tmp_path / "ran").exists()


def folder_with_bad(tmp_path: Path, num_good: int, num_bad: int) -> list[Path]:
    """Paths of good images with bad ones between them."""
    write_images(tmp_path, num_good, size=8)
    for number in range(num_bad):
        (tmp_path / f"{number:03d}x.png").write_bytes(b"no image")
    return sorted(tmp_path.iterdir())


@pytest.mark.parametrize("num_threads", [1, 4])
def test_bad_images_are_sorted_out_with_their_reasons_and_the_good_keep_their_order(
    tmp_path: Path, num_threads: int
) -> None:
    paths = folder_with_bad(tmp_path, 8, 2)
    seen: list[tuple[int, int]] = []
    checked = check_images(
        paths, max_bad=0.2, num_threads=num_threads, progress=lambda done, total: seen.append((done, total))
    )
    assert checked.good == [path for path in paths if "x" not in path.name]
    assert list(checked.bad) == [tmp_path / "000x.png", tmp_path / "001x.png"]
    assert checked.bad_lines()[0].startswith(f"{tmp_path / '000x.png'}\tnot a readable JPEG")
    assert seen == [(done, 10) for done in range(1, 11)]


def test_just_more_bad_images_than_allowed_stop_the_run(tmp_path: Path) -> None:
    paths = folder_with_bad(tmp_path, 8, 2)
    with pytest.raises(DataError, match=r"2 of 10 images are unusable, more than `max_bad` 0\.19 allows: .*000x\.png"):
        check_images(paths, max_bad=0.19)


def test_one_bad_image_is_too_many_where_none_is_allowed(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="1 of 9 images are unusable, more than `max_bad` 0 allows"):
        check_images(folder_with_bad(tmp_path, 8, 1), max_bad=0)


def test_nothing_but_bad_images_is_refused_whatever_the_limit(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="3 of 3 images are unusable, none is left"):
        check_images(folder_with_bad(tmp_path, 0, 3), max_bad=1)
