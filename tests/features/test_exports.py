"""Each format gives back the rows and paths that went in, and is complete or not there."""

import csv
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from smn_cli.errors import DataError, UsageError
from smn_cli.features.write import SUFFIXES, check_feature_file, write_features

IMAGES = [Path("a/1.png"), Path('b/"2", ü.png'), Path("b/3.png"), Path("c.tar/4.png"), Path("d.png")]
ROWS = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
needs = {".faiss": "faiss", ".lance": "lance", ".parquet": "pyarrow"}


def batches(rows: Tensor = ROWS) -> Iterator[Tensor]:
    for first in range(0, len(rows), 2):
        yield rows[first : first + 2]


def test_csv_gives_the_same_floats_and_paths_back(tmp_path: Path) -> None:
    images = [*IMAGES[:4], Path("line\nbreak.png")]
    assert write_features(tmp_path / "f.csv", images, batches()) == 3
    with (tmp_path / "f.csv").open(encoding="utf-8", newline="") as file:
        head, *lines = csv.reader(file)
    assert head == ["path", "f0", "f1", "f2"]
    assert [line[0] for line in lines] == [str(image) for image in images]
    assert np.array([line[1:] for line in lines]).astype(np.float32).tobytes() == ROWS.numpy().tobytes()


@pytest.mark.parametrize("is_unit", [True, False])
def test_a_faiss_index_holds_the_rows_and_finds_the_nearest(tmp_path: Path, is_unit: bool) -> None:
    faiss = pytest.importorskip("faiss", reason="needs the scale extra")
    rows = torch.nn.functional.normalize(ROWS) if is_unit else ROWS
    assert write_features(tmp_path / "f.faiss", IMAGES, batches(rows), is_unit=is_unit) == 3
    index = faiss.read_index(str(tmp_path / "f.faiss"))
    assert index.reconstruct_n(0, 5).tobytes() == rows.numpy().tobytes()
    scores, found = index.search(rows.numpy(), 2)
    expected = rows @ rows.T if is_unit else (rows[:, None] - rows).square().sum(2)
    order = expected.argsort(dim=1, descending=is_unit)[:, :2]
    assert found.tolist() == order.tolist()
    assert np.allclose(scores, expected.gather(1, order).numpy(), atol=1e-5)
    assert (tmp_path / "f.paths.txt").read_text().splitlines() == [str(image) for image in IMAGES]


def test_a_lance_table_holds_rows_and_paths_and_takes_the_place_of_another(tmp_path: Path) -> None:
    lance = pytest.importorskip("lance", reason="needs the lance extra")
    write_features(tmp_path / "f.lance", IMAGES[:2], batches(ROWS[:2]))
    assert write_features(tmp_path / "f.lance", IMAGES, batches()) == 3
    table = lance.dataset(str(tmp_path / "f.lance")).to_table()
    assert table["path"].to_pylist() == [str(image) for image in IMAGES]
    assert np.array(table["features"].to_pylist(), np.float32).tobytes() == ROWS.numpy().tobytes()
    assert [path.name for path in tmp_path.iterdir()] == ["f.lance"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_whose_features_end_early_is_not_there(tmp_path: Path, suffix: str) -> None:
    if suffix in needs:
        pytest.importorskip(needs[suffix])

    def broken() -> Iterator[Tensor]:
        yield ROWS[:2]
        raise DataError("an image vanished")

    ends = [
        (broken(), DataError, "^an image vanished$"),
        (batches(ROWS[:4]), ValueError, "^expected features of 5 .*4$"),
    ]
    for end, kind, message in ends:
        with pytest.raises(kind, match=message):
            write_features(tmp_path / f"f{suffix}", IMAGES, end)
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("suffix", "module", "extra"), [(".faiss", "faiss", "scale"), (".lance", "lance", "lance")])
def test_a_format_whose_package_is_missing_is_refused(
    monkeypatch: pytest.MonkeyPatch, suffix: str, module: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UsageError, match=rf"`out` f{suffix} needs {module}: pip install 'smn-cli\[{extra}\]'"):
        check_feature_file(Path(f"f{suffix}"), IMAGES)


def test_a_list_of_paths_cannot_hold_a_line_break_and_a_csv_can() -> None:
    with pytest.raises(DataError, match=r"holds a line break.*use \.parquet or \.csv"):
        check_feature_file(Path("f.npy"), [Path("a\nb.png")])
    check_feature_file(Path("f.csv"), [Path("a\nb.png")])
