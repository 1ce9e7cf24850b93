"""Images in the rows of parquet files are those that were written; damage makes bad images or one line."""

import contextlib
import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smn_cli.data.images import parquet
from smn_cli.data.images.decode import read_image
from smn_cli.data.images.find import find_images
from smn_cli.data.images.validate import check_images
from smn_cli.errors import DataError, UsageError
from tests.conftest import write_images
from tests.data.images.tars import png, reason

pyarrow = pytest.importorskip("pyarrow", reason="needs the parquet extra")
from pyarrow.parquet import ParquetFile, write_table  # noqa: E402

STRUCT = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])


def in_struct(images: list[bytes | None]) -> Any:
    """A column as `datasets` writes it."""
    return pyarrow.array([None if data is None else {"bytes": data, "path": "../same.jpg"} for data in images], STRUCT)


def write(path: Path, columns: dict[str, Any], rows_of_group: int = 2) -> Path:
    write_table(pyarrow.table(columns), path, row_group_size=rows_of_group)
    return path


@pytest.fixture(autouse=True)
def _empty() -> None:
    parquet._groups.clear()


@pytest.mark.parametrize("kind", ["struct", "binary", "large_binary"])
def test_an_image_in_a_row_is_the_image_that_was_written(tmp_path: Path, kind: str) -> None:
    write_images(tmp_path / "loose", 5, size=12)
    loose = sorted((tmp_path / "loose").iterdir())
    images: list[bytes | None] = [path.read_bytes() for path in loose]
    column = in_struct(images) if kind == "struct" else pyarrow.array(images, getattr(pyarrow, kind)())
    file = write(tmp_path / "train.parquet", {"label": pyarrow.array(range(5)), "image": column})
    assert find_images([file]) == [file / f"{row:07d}.img" for row in range(5)]
    for row in (4, 0, 3, 1, 2):
        image, path = read_image(file / f"{row:07d}.img"), loose[row]
        assert np.array_equal(np.asarray(image), np.asarray(read_image(path)))


def test_of_several_columns_the_one_called_image_counts(tmp_path: Path) -> None:
    masks, images = in_struct([png(1)]), in_struct([png(2)])
    file = write(tmp_path / "a.parquet", {"mask": masks, "img": images})
    assert read_image(find_images([file])[0]).getpixel((0, 0)) == (2, 2, 2)
    write(file, {"mask": masks, "photo": images})
    with pytest.raises(DataError, match="several columns that may be images: mask, photo: name one of them image"):
        find_images([file])


def test_rows_can_be_named_again_in_a_list(tmp_path: Path) -> None:
    file = write(tmp_path / "a.parquet", {"image": in_struct([png(), png()])})
    (tmp_path / "images.txt").write_text("a.parquet/0000001.img\n")
    assert find_images([tmp_path / "images.txt"]) == [file / "0000001.img"]
    for name in ("0000002.img", "1.img", "000000１.img", "-000001.img", "0000001.png"):
        (tmp_path / "images.txt").write_text(f"a.parquet/{name}\n")
        with pytest.raises(DataError, match="line 1: "):
            find_images([tmp_path / "images.txt"])
        assert reason(file / name) == "no such row in the parquet file"


def test_a_file_without_images_is_refused_by_name_and_left_out_of_a_folder(tmp_path: Path) -> None:
    features = write(tmp_path / "features.parquet", {"path": pyarrow.array(["a"]), "f": pyarrow.array([[0.5]])})
    with pytest.raises(DataError, match=r"features\.parquet has no column of images: .*; found path, f$"):
        find_images([features])
    file = write(tmp_path / "a.parquet", {"image": in_struct([png()])})
    notes: list[str] = []
    assert find_images([tmp_path], note=notes.append) == [file / "0000000.img"]
    assert "features.parquet is left out: " in notes[0]


def test_rows_without_bytes_or_with_other_bytes_are_bad_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path / "a.parquet", {"image": in_struct([png(), None, b"text"])})
    checked = check_images(find_images([file]), max_bad=1)
    assert checked.good == [file / "0000000.img"]
    assert reason(file / "0000001.img") == "its row in the parquet file holds no bytes"
    assert reason(file / "0000002.img").startswith("not a readable")
    monkeypatch.setattr(parquet, "MAX_MEMBER_BYTES", 10)
    assert "bytes: more than 10" in reason(file / "0000000.img")


def test_groups_are_read_when_wanted_and_the_last_ones_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images: list[bytes | None] = [png(grey) for grey in range(6)]
    file = write(tmp_path / "a.parquet", {"image": in_struct(images)}, rows_of_group=2)
    read: list[int] = []
    own = ParquetFile.read_row_group

    def counted(self: Any, group: int, **options: Any) -> Any:
        read.append(group)
        assert options["columns"] == ["image.bytes"]
        return own(self, group, **options)

    monkeypatch.setattr(ParquetFile, "read_row_group", counted)
    paths = find_images([file])
    assert read == []
    for row in (0, 1, 4, 0, 5):
        assert read_image(paths[row]).getpixel((0, 0)) == (row, row, row)
    assert read == [0, 2]
    monkeypatch.setattr(parquet, "KEPT_BYTES", 0)
    for row in (2, 3, 0, 2):
        read_image(paths[row])
    assert read == [0, 2, 1, 0, 1]
    assert len(parquet._groups) == 1


def test_a_file_that_repeats_one_image_a_thousand_times_stays_small_in_memory(tmp_path: Path) -> None:
    data = png() + bytes(100_000)
    file = write(tmp_path / "a.parquet", {"image": pyarrow.array([data] * 1000, pyarrow.binary())}, rows_of_group=1000)
    assert file.stat().st_size < 200_000
    assert read_image(file / "0000999.img").size == (4, 4)
    (group,) = parquet._groups.values()
    assert group.nbytes < 200_000


def test_row_groups_that_would_fill_the_memory_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "MAX_GROUP_BYTES", 200)
    file = write(tmp_path / "a.parquet", {"image": in_struct([png(), png(1), png(2), png(3)])}, rows_of_group=4)
    with pytest.raises(DataError, match=r"row group 0 holds .* bytes, more than 200: write it again"):
        find_images([file])
    monkeypatch.setattr(parquet, "MAX_GROUP_BYTES", 10_000)
    monkeypatch.setattr(parquet, "MAX_MEMBERS", 3)
    with pytest.raises(DataError, match="has more than 3 rows: split it"):
        find_images([file])


def test_without_pyarrow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path / "a.parquet", {"image": in_struct([png()])})
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(UsageError, match=r"a\.parquet is read by pyarrow: pip install 'smn-cli\[parquet\]'"):
        find_images([file])
    assert "smn-cli[parquet]" in reason(file / "0000000.img")


@pytest.mark.parametrize("data", [b"", b"PAR1", b"text " * 200, b"PAR1" + bytes(100) + b"PAR1"])
def test_what_is_no_parquet_file_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.parquet").write_bytes(data)
    with pytest.raises(DataError, match=r"a\.parquet is not a parquet file, damaged or cut short"):
        find_images([tmp_path / "a.parquet"])


def test_damage_in_a_row_group_is_told_of_its_rows(tmp_path: Path) -> None:
    images: list[bytes | None] = [png(grey) for grey in range(4)]
    file = write(tmp_path / "a.parquet", {"image": in_struct(images)}, rows_of_group=2)
    with ParquetFile(file) as opened:
        chunk = opened.metadata.row_group(1).column(0)
    start = min(chunk.dictionary_page_offset or chunk.data_page_offset, chunk.data_page_offset)
    data = bytearray(file.read_bytes())
    data[start : start + 30] = b"\xff" * 30
    file.write_bytes(bytes(data))
    checked = check_images(find_images([file]), max_bad=1)
    assert checked.good == [file / "0000000.img", file / "0000001.img"]
    assert all(text.startswith("its row group 1 in the parquet file is damaged: ") for text in checked.bad.values())


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 255)), min_size=1, max_size=4))
def test_damaged_files_raise_nothing_but_data_errors(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int]]
) -> None:
    file = tmp_path_factory.mktemp("damaged") / "a.parquet"
    buffer = io.BytesIO()
    write_table(pyarrow.table({"image": in_struct([png(), png(3), b"x"])}), buffer, row_group_size=2)
    data = bytearray(buffer.getvalue())
    for position, value in changes:
        data[-1 - position % len(data)] = value
    file.write_bytes(bytes(data))
    with contextlib.suppress(DataError):
        lines = check_images(find_images([file]), max_bad=1).bad_lines()
        assert not any("\n" in line for line in lines)
