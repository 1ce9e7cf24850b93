"""Views are the pixels of their boxes, resized as torchvision resizes them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional

from smn_cli.data.views.boxes import fit_boxes
from smn_cli.data.views.crops import ViewCutter, least_side
from smn_cli.data.views.pixel_cache import PixelCache
from smn_cli.recipes import RECIPES, ViewPlan
from tests.conftest import write_images

PLAN = ViewPlan(2, 24, (0.4, 1.0), 3, 16, (0.1, 0.4), (0.0, 0.0, 0.0, 0.0), 0.0, 0.0, 0.0)
STILL = ViewPlan(1, 16, (1.0, 1.0), 0, 16, (1.0, 1.0), (0.0, 0.0, 0.0, 0.0), 0.0, 0.0, 0.0)


def saved(pixels: np.ndarray, path: Path) -> Path:
    """An image file of these pixels."""
    Image.fromarray(pixels).save(path)
    return path


@pytest.mark.parametrize("size", [(30, 70), (51, 37)])
def test_a_view_is_torchvisions_resized_crop_of_its_box(size: tuple[int, int], tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    cutter = ViewCutter([saved(pixels, tmp_path / "a.png")], PLAN)
    places = cutter.draw(1, np.random.default_rng(1))
    large, small = cutter.cut([0], places)
    sides = np.array([[size[1], size[0]]])
    image = torch.from_numpy(pixels).permute(2, 0, 1)
    for views, boxes, side in (
        (large[0], fit_boxes(places[:, :2], sides, PLAN.global_area, PLAN.aspect)[0], 24),
        (small[0], fit_boxes(places[:, 2:], sides, PLAN.local_area, PLAN.aspect)[0], 16),
    ):
        for view, (top, left, height, width) in zip(views, boxes.tolist(), strict=True):
            expected = functional.resized_crop(image, top, left, height, width, [side, side], antialias=True)
            difference = view.permute(2, 0, 1).int() - expected.int()
            assert int(difference.abs().max()) <= 1


def test_a_view_with_nothing_left_to_chance_is_the_image(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (16, 16, 3), dtype=np.uint8)
    cutter = ViewCutter([saved(pixels, tmp_path / "a.png")], STILL)
    large, small = cutter.cut([0], cutter.draw(1, np.random.default_rng(0)))
    np.testing.assert_array_equal(large[0, 0].numpy(), pixels)
    assert small.shape == (1, 0, 16, 16, 3)


def test_global_views_show_at_least_the_planned_area(tmp_path: Path) -> None:
    # every pixel's value is its row, so the span of a view's values tells how many rows it covers
    rows = np.repeat(np.arange(100, dtype=np.uint8)[:, None, None], 100, axis=1).repeat(3, axis=2)
    plan = replace(STILL, global_size=64, global_area=(0.5, 0.5), num_global=20)
    cutter = ViewCutter([saved(rows, tmp_path / "a.png")], plan)
    large, _ = cutter.cut([0], cutter.draw(1, np.random.default_rng(0)))
    spans = large[0].flatten(1).max(dim=1).values.int() - large[0].flatten(1).min(dim=1).values.int()
    # half the area at aspect ratios between 3/4 and 4/3 is sqrt(.5 x 3/4) = .61 to sqrt(.5 x 4/3) = .82 of the rows;
    # the resampling filter takes up to 2 rows at either end
    assert 57 <= int(spans.min()) <= int(spans.max()) <= 83


@pytest.mark.parametrize("shape", [(20, 37), (37, 20), (21, 36), (30, 30)])
def test_from_the_centre_square_only_the_middle_is_seen(shape: tuple[int, int], tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    side = min(shape)
    plan = replace(STILL, global_size=side, from_centre_square=True)
    cutter = ViewCutter([saved(pixels, tmp_path / "a.png")], plan)
    large, _ = cutter.cut([0], cutter.draw(1, np.random.default_rng(0)))
    expected = functional.center_crop(torch.from_numpy(pixels).permute(2, 0, 1), [side, side])
    assert torch.equal(large[0, 0].permute(2, 0, 1), expected)


def test_cached_pixels_give_the_same_views_without_their_files(tmp_path: Path) -> None:
    write_images(tmp_path / "images", 3, size=90)
    paths = sorted((tmp_path / "images").iterdir())
    cutter = ViewCutter(paths, PLAN, PixelCache(3, 10**6))
    places = cutter.draw(3, np.random.default_rng(0))
    first = cutter.cut([0, 2, 1], places)
    for path in paths:
        path.unlink()
    assert all(map(torch.equal, cutter.cut([0, 2, 1], places), first))


def test_the_least_side_shows_the_smallest_view_without_enlarging_it() -> None:
    assert least_side(RECIPES["default"].views) == 83  # 64 / sqrt(.6) = 82.6
    assert least_side(RECIPES["paper"].views) == 599  # 224 / sqrt(.14) = 598.7; 96 / sqrt(.05) is 430
    assert least_side(replace(PLAN, local_area=(0.01, 0.4))) == 160
    assert least_side(replace(PLAN, num_local=0, local_area=(0.01, 0.4))) == 38


def test_views_of_an_image_reduced_first_are_nearly_those_of_the_whole(tmp_path: Path) -> None:
    coarse = Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 30, 3), dtype=np.uint8))
    coarse.resize((360, 360), Image.Resampling.BICUBIC).save(tmp_path / "a.png")
    plan = replace(PLAN, global_size=64, global_area=(0.6, 1.0), num_local=0)
    cutter = ViewCutter([tmp_path / "a.png"], plan)
    places = cutter.draw(1, np.random.default_rng(0))
    reduced, _ = cutter.cut([0], places)
    cutter._least_side = 1000
    whole, _ = cutter.cut([0], places)
    # the boxes lie on a grid of 4 pixels instead of one
    assert 0 < float((reduced.float() - whole.float()).abs().mean()) < 6
