"""Masks side by side."""

import numpy as np
import pytest

from smn_cli.adapters.comparing import compare_masks
from smn_cli.errors import MismatchError


def test_what_only_one_masks_is_kept_whole_by_the_other() -> None:
    [found] = compare_masks({"a": np.array([True, False, False])}, {})
    assert (found.num_weights, found.num_equal, found.both_cut, found.either_cut) == (3, 1, 0, 2)


def test_masks_of_one_name_and_two_shapes_are_refused() -> None:
    with pytest.raises(MismatchError, match=r"the masks of a are \(4, 1\) and \(1, 4\): one file is damaged"):
        compare_masks({"a": np.ones((4, 1), dtype=bool)}, {"a": np.zeros((1, 4), dtype=bool)})
