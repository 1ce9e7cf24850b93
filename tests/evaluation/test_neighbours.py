"""Tiles against one sorted list: features whose cosines are exact in float32, so that equal ones are equal."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from smn_cli.evaluation import neighbours
from smn_cli.evaluation.knn import knn_predict
from smn_cli.evaluation.neighbours import nearest, tile_shape

WIDTH = 16


@pytest.fixture(autouse=True, scope="module")
def _small_blocks() -> Iterator[None]:
    """Blocks of 2 test and 4 training rows, so that few rows make many of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neighbours, "BLOCK_TEST", 2)
        patch.setattr(neighbours, "BLOCK_TRAIN", 4)
        yield


CPU = torch.device("cpu")


def corners(num_rows: int, num_free: int, generator: torch.Generator) -> Tensor:
    """Rows of ±1, length 4, that differ in their first `num_free` numbers only: few cosines, many equal."""
    rows = torch.ones(num_rows, WIDTH)
    rows[:, :num_free] = torch.randint(2, (num_rows, num_free), generator=generator).float() * 2 - 1
    return rows


def nearest_slowly(train: Tensor, test: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Cosines and positions of the first k of all rows, sorted by falling cosine, then by position."""
    cosines = (test.double() @ train.double().T) / WIDTH
    positions = torch.tensor(
        [sorted(range(len(train)), key=lambda row: (-line[row], row))[:k] for line in cosines.tolist()]
    )
    return cosines.gather(1, positions).float(), positions


def nearest_at_once(train: Tensor, test: Tensor, k: int, chunk_bytes: int) -> tuple[Tensor, Tensor]:
    """All chunks of `nearest`, put together."""
    parts = list(nearest(train, test, k=k, device=CPU, chunk_bytes=chunk_bytes))
    assert [row for rows, _ in parts for row in range(len(test))[rows]] == list(range(len(test)))
    return torch.cat([found.cosines for _, found in parts]), torch.cat([found.positions for _, found in parts])


@settings(max_examples=150, deadline=None)
@given(
    num_train=st.integers(1, 40),
    num_test=st.integers(1, 9),
    num_free=st.integers(0, WIDTH),
    k=st.integers(1, 45),
    chunk_bytes=st.integers(1, 20_000),
    dtype=st.sampled_from([torch.float32, torch.float16, torch.bfloat16, torch.float64]),
    seed=st.integers(0, 2**32),
)
def test_tiles_of_any_size_find_the_same_neighbours_in_the_same_order(
    num_train: int, num_test: int, num_free: int, k: int, chunk_bytes: int, dtype: torch.dtype, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    train, test = corners(num_train, num_free, generator), corners(num_test, num_free, generator)
    k = min(k, num_train)
    cosines, positions = nearest_at_once(train.to(dtype), test.to(dtype), k, chunk_bytes)
    expected_cosines, expected = nearest_slowly(train, test, k)
    assert torch.equal(positions, expected)
    assert torch.equal(cosines, expected_cosines)


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(chunk_bytes=st.integers(1, 200_000), k=st.integers(1, 60), seed=st.integers(0, 2**32))
def test_tiles_of_any_size_predict_the_same(chunk_bytes: int, k: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    train, test = torch.randn(60, 24, generator=generator), torch.randn(20, 24, generator=generator)
    train[30:45] = train[:15]  # the same image twice, now and then with two labels
    labels = torch.randint(4, (60,), generator=generator)
    whole = knn_predict(train, labels, test, ks=[k], num_classes=4)[k]
    assert torch.equal(knn_predict(train, labels, test, ks=[k], num_classes=4, chunk_bytes=chunk_bytes)[k], whole)
    cosines, positions = nearest_at_once(train, test, k, chunk_bytes)
    expected_cosines, expected = nearest_at_once(train, test, k, 1 << 29)
    assert torch.equal(cosines, expected_cosines)
    assert torch.equal(positions, expected)


class LargestResult(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes the size in bytes of the largest tensor that an operation made."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.size_bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        results = func(*args, **(kwargs or {}))
        own = {tensor.untyped_storage().data_ptr() for tensor in args if isinstance(tensor, Tensor)}
        for result in results if isinstance(results, tuple | list) else [results]:
            if isinstance(result, Tensor) and result.untyped_storage().data_ptr() not in own:
                self.size_bytes = max(self.size_bytes, result.nbytes)
        return results


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_no_result_on_the_way_is_larger_than_its_share_of_the_memory(dtype: torch.dtype) -> None:
    train, test = torch.ones(4_000, 32, dtype=dtype), torch.ones(150, 32, dtype=dtype)
    largest = LargestResult()
    with largest:
        for _ in nearest(train, test, k=50, device=CPU, chunk_bytes=80_000):
            pass
    assert 0 < largest.size_bytes <= 80_000 // 2


def test_a_tile_is_no_larger_than_what_there_is() -> None:
    assert tile_shape(5, 7, 16, k=3, chunk_bytes=1 << 30) == (5, 7)
    assert tile_shape(5, 7, 16, k=3, chunk_bytes=1) == (2, 4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_both_sets_of_features_stay_as_they_are(dtype: torch.dtype) -> None:
    train, test = torch.full((9, 4), 3.0, dtype=dtype), torch.full((5, 4), 7.0, dtype=dtype)
    nearest_at_once(train, test, 2, 100)
    assert set(train.flatten().tolist()) == {3.0}
    assert set(test.flatten().tolist()) == {7.0}


def test_rows_without_a_direction_are_at_right_angles_to_everything() -> None:
    train = torch.tensor([[0.0, 0.0], [-1.0, 0.0], [1.0, 0.0]])
    cosines, positions = nearest_at_once(train, torch.tensor([[2.0, 0.0], [0.0, 0.0]]), 3, 1 << 20)
    assert positions.tolist() == [[2, 0, 1], [0, 1, 2]]
    assert cosines.tolist() == [[1.0, 0.0, -1.0], [0.0, 0.0, 0.0]]


def test_features_that_are_no_numbers_stop_nothing() -> None:
    train = torch.ones(12, 4)
    train[3] = torch.nan
    _, positions = nearest_at_once(train, torch.ones(2, 4), 5, 1 << 20)
    assert positions.sort(dim=1).values.tolist() == [[0, 1, 2, 3, 4]] * 2
