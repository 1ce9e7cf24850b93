"""Packed paths are the paths, bytes that are no text among them."""

import os
from pathlib import Path

import pytest

from smn_cli.data.images.packed_paths import PackedPaths


@pytest.mark.parametrize("num", [0, 1, 5])
def test_packed_paths_are_those_that_were_packed(num: int) -> None:
    paths = [Path("a/b.jpg"), Path("/tars/0.tar/ü.png"), Path(os.fsdecode(b"\xff\n.jpg")), Path(), Path("x")][:num]
    packed = PackedPaths(paths)
    assert len(packed) == num
    assert list(packed) == paths
    assert [packed[place - num] for place in range(num)] == paths
    assert packed[1:4:2] == paths[1:4:2]
    for beyond in (num, -num - 1):
        with pytest.raises(IndexError):
            packed[beyond]
