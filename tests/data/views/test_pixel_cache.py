"""The pixel cache gives back what was put in, up to its room, and is shared with forked processes."""

import os
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from smn_cli.data.views import pixel_cache
from smn_cli.data.views.pixel_cache import PixelCache, make_cache


def pixels(number: int, height: int = 4, width: int = 5) -> np.ndarray:
    """An image of noise."""
    return np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("is_shared", [True, False])
def test_pixels_come_back_with_their_shapes_and_others_are_absent(is_shared: bool) -> None:
    kept = PixelCache(10, 10_000, is_shared=is_shared)
    kept.put(3, pixels(3))
    kept.put(7, pixels(7, 6, 2))
    for number, expected in ((3, pixels(3)), (7, pixels(7, 6, 2))):
        found = kept.get(number)
        assert found is not None
        np.testing.assert_array_equal(found, expected)
    assert kept.get(0) is None


def test_what_does_not_fit_is_left_out_and_smaller_ones_may_still_come_in() -> None:
    kept = PixelCache(4, 100)
    kept.put(0, pixels(0))  # 60 bytes
    kept.put(1, pixels(1))
    kept.put(2, pixels(2, 2, 5))
    assert kept.get(1) is None
    found = [kept.get(0), kept.get(2)]
    np.testing.assert_array_equal(found[0], pixels(0))
    np.testing.assert_array_equal(found[1], pixels(2, 2, 5))


@pytest.mark.parametrize("is_shared", [True, False])
def test_threads_do_not_write_over_each_other(is_shared: bool) -> None:
    kept = PixelCache(200, 200 * 60, is_shared=is_shared)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: kept.put(number, pixels(number)), range(200)))
    for number in range(200):
        np.testing.assert_array_equal(kept.get(number), pixels(number))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no forked processes")
def test_what_a_forked_process_puts_in_is_seen_here() -> None:
    kept = PixelCache(2, 1000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a library that another test has imported may not like it
        child = os.fork()
    if not child:
        kept.put(1, pixels(1))
        os._exit(0)
    os.waitpid(child, 0)
    np.testing.assert_array_equal(kept.get(1), pixels(1))


def test_the_room_is_what_the_images_need_or_half_of_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pixel_cache, "free_memory", lambda: 10_000)
    sizes = []
    monkeypatch.setattr(pixel_cache, "PixelCache", lambda _, num_bytes, **__: sizes.append(num_bytes))
    make_cache(2, 10)
    make_cache(1000, 10)
    make_cache(1000, 10, num_processes=4)
    assert sizes == [2 * 10 * 10 * 3 * 2, 5_000, 1_250]


def test_memory_that_the_system_refuses_is_no_cache_and_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pixel_cache, "free_memory", lambda: 1 << 62)
    assert make_cache(1 << 40, 1 << 10) is None
