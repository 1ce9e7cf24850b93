"""Rows of many images: in memory while they are few, else in half precision in a file without a name."""

import os
from pathlib import Path

import pytest
import torch

from smn_cli.features import row_store
from smn_cli.features.row_store import fill, pieces, room_for_rows


def test_few_rows_are_float32_in_memory(tmp_path: Path) -> None:
    rows = room_for_rows(10, 4, tmp_path)
    assert (rows.dtype, rows.shape) == (torch.float32, (10, 4))
    assert room_for_rows(10, 4, tmp_path, half=True).dtype == torch.half
    fill(rows, 8, torch.full((2, 4), 1e6))
    assert rows[8:].tolist() == [[1e6] * 4] * 2


@pytest.mark.skipif(os.name == "nt", reason="a mapped file keeps its name there")
def test_many_rows_are_float16_in_a_mapped_file_that_has_no_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_store, "MAX_BYTES", 159)
    rows = room_for_rows(10, 4, tmp_path)
    assert rows.dtype == torch.half
    assert list(tmp_path.iterdir()) == []
    maps = Path("/proc/self/maps")
    if maps.exists():
        assert f"{tmp_path}/.rows." in maps.read_text()
    values = torch.arange(40.0).view(10, 4)
    for first in (0, 5):
        fill(rows, first, values[first : first + 5])
    assert torch.equal(rows.float(), values)
    fill(rows, 0, torch.tensor([[1e6, -1e6, 0.5, 70000]]))
    assert rows[0].tolist() == [65504, -65504, 0.5, 65504]


def test_pieces_follow_one_another_and_small_runs_have_one() -> None:
    assert pieces(50_000) == [slice(0, 50_000)]
    assert pieces(120_000) == [slice(0, 50_000), slice(50_000, 100_000), slice(100_000, 120_000)]
    assert pieces(0) == []
