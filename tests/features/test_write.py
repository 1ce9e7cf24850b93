"""Features in files: the bytes that others expect."""

from pathlib import Path

import numpy as np
import pytest
import torch

from smn_cli.features.write import write_features


def test_an_npy_that_is_written_in_parts_has_the_bytes_of_numpys_own(tmp_path: Path) -> None:
    rows = torch.randn(7, 5)
    turned = rows.T.contiguous().T  # rows that lie apart
    images = [tmp_path / f"{number}.png" for number in range(7)]
    assert write_features(tmp_path / "f.npy", images, [turned[:3], turned[3:4], turned[4:]]) == 5
    np.save(tmp_path / "whole.npy", rows.numpy())
    assert (tmp_path / "f.npy").read_bytes() == (tmp_path / "whole.npy").read_bytes()


def test_too_few_rows_leave_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected features of 2 images, found 1"):
        write_features(tmp_path / "f.npy", [Path("a.png"), Path("b.png")], [torch.ones(1, 3)])
    assert list(tmp_path.iterdir()) == []
