"""What happens to views is what torchvision's transforms do to each of them, and happens as often."""

from dataclasses import replace
from math import sqrt

import numpy as np
import pytest
import torch
from scipy.stats import kstest
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from smn_cli.data.views import augmentation, colour
from smn_cli.data.views.augmentation import ORDERS, Changes, augment, draw_changes
from smn_cli.recipes import ViewPlan

PLAN = ViewPlan(2, 32, (0.4, 1.0), 3, 16, (0.1, 0.4), (0.4, 0.6, 0.8, 0.2), 0.8, 0.2, 0.5)
STILL = replace(PLAN, jitter_probability=0.0, grey_probability=0.0, blur_probability=0.0, flip_probability=0.0)
NUM_VIEWS = 60


def drawn(plan: ViewPlan, number: int = NUM_VIEWS, seed: int = 0) -> Changes:
    """Draws of shape (number,)."""
    return draw_changes(plan, (1, number), np.random.default_rng(seed)).views(0, 1)


def views(number: int = NUM_VIEWS, size: int = 32) -> Tensor:
    """uint8 noise over smooth colours, channels last as the loader gives them."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(number, 3, 3, 3, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bilinear") * 200
    noisy = smooth + 55 * torch.rand(smooth.shape, generator=generator)
    return noisy.to(torch.uint8).contiguous(memory_format=torch.channels_last)


def one_by_one(pixels: Tensor, changes: Changes, plan: ViewPlan) -> Tensor:
    """The reference: torchvision's functions on one view after the other, as floats from 0 to 1."""
    done = []
    for row, view in enumerate(pixels):
        image = view.float() / 255
        if changes.flips[row]:
            image = functional.horizontal_flip(image)
        steps = (
            functional.adjust_brightness,
            functional.adjust_contrast,
            functional.adjust_saturation,
            functional.adjust_hue,
        )
        order = int(changes.orders[row])
        for step in ORDERS[order] if order >= 0 else ():
            if plan.jitter[step]:
                image = steps[step](image, float(changes.amounts[row, step]))
        if changes.greys[row]:
            image = functional.rgb_to_grayscale(image, num_output_channels=3)
        sigma = float(changes.sigmas[row])
        if sigma:
            taps = 5 if image.shape[-1] == 32 else 13
            image = functional.gaussian_blur(image, [taps, taps], [sigma, sigma])
        done.append(image)
    return torch.stack(done) * 255


@pytest.mark.parametrize("size", [32, 112])
def test_views_are_changed_as_torchvision_changes_each_of_them(size: int) -> None:
    number = NUM_VIEWS if size == 32 else 12
    changes = drawn(PLAN, number)
    found = augment(views(number, size), changes, PLAN)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, one_by_one(views(number, size), changes, PLAN), rtol=0, atol=5e-3)


@pytest.mark.parametrize(
    "plan",
    [
        replace(STILL, jitter_probability=0.9),
        replace(STILL, jitter_probability=0.9, jitter=(0.3, 0.3, 0.3, 0.0)),
        replace(STILL, grey_probability=0.5),
        replace(STILL, blur_probability=0.5),
        replace(STILL, grey_probability=0.5, flip_probability=0.5),
    ],
)
def test_a_plan_of_fewer_steps_takes_those_only(plan: ViewPlan) -> None:
    changes = drawn(plan)
    torch.testing.assert_close(augment(views(), changes, plan), one_by_one(views(), changes, plan), rtol=0, atol=5e-3)


def test_without_colours_views_stay_whole_numbers_and_are_flipped_exactly() -> None:
    plan = replace(STILL, flip_probability=0.5)
    changes = drawn(plan)
    found = augment(views(), changes, plan)
    assert found.dtype == torch.uint8
    assert torch.equal(found, one_by_one(views(), changes, plan).round().to(torch.uint8))
    assert 0 < int(changes.flips.sum()) < NUM_VIEWS


def test_flips_leave_pixels_and_their_layout_as_they_were_given() -> None:
    plan = replace(STILL, flip_probability=0.5)
    changes, given = drawn(plan), views().contiguous(memory_format=torch.channels_last)
    found = augment(given, changes, plan)
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(given, views())
    assert torch.equal(found, augment(views(), changes, plan))


def test_without_any_step_nothing_is_computed() -> None:
    pixels = views()
    assert augment(pixels, drawn(STILL), STILL) is pixels
    no_jitter = replace(STILL, jitter_probability=1.0, jitter=(0.0, 0.0, 0.0, 0.0))
    assert augment(pixels, drawn(no_jitter), no_jitter) is pixels


def test_a_jitter_without_hue_does_not_compute_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(colour, "turn_hue", None)
    plan = replace(PLAN, jitter=(0.4, 0.6, 0.8, 0.0))
    augment(views(), drawn(plan), plan)


def test_the_given_pixels_are_left_alone() -> None:
    pixels = views()
    augment(pixels, drawn(PLAN), PLAN)
    assert torch.equal(pixels, views())


def test_a_view_does_not_depend_on_its_neighbours_or_on_the_size_of_a_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    changes = drawn(PLAN)
    together = augment(views(), changes, PLAN)
    few = Changes(*(values[7:20] for values in changes))
    torch.testing.assert_close(augment(views()[7:20], few, PLAN), together[7:20], rtol=0, atol=1e-3)
    monkeypatch.setattr(augmentation, "CHUNK", 1)
    torch.testing.assert_close(augment(views(), changes, PLAN), together, rtol=0, atol=1e-3)


def test_a_precision_for_the_network_does_not_reach_the_pixels() -> None:
    changes = drawn(PLAN)
    expected = augment(views(), changes, PLAN)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(augment(views(), changes, PLAN), expected, rtol=0, atol=1e-3)


def test_views_of_a_group_are_those_of_its_rows_one_view_after_the_other() -> None:
    changes = draw_changes(PLAN, (5, 7), np.random.default_rng(0))
    for values, group in zip(changes, changes.views(2, 5), strict=True):
        assert torch.equal(group, torch.cat([values[2], values[3], values[4]]))


def test_steps_happen_as_often_as_planned_and_independently() -> None:
    changes = drawn(PLAN, 20_000)
    marks = {"flip": changes.flips, "jitter": changes.orders >= 0, "grey": changes.greys, "blur": changes.sigmas > 0}
    planned = {"flip": 0.5, "jitter": 0.8, "grey": 0.2, "blur": 0.5}
    shares = {name: float(mark.float().mean()) for name, mark in marks.items()}
    assert shares == pytest.approx(planned, abs=4 * 0.5 / sqrt(20_000))
    together = torch.corrcoef(torch.stack([mark.float() for mark in marks.values()])) - torch.eye(4)
    assert float(together.abs().max()) < 4 / sqrt(20_000)


def test_orders_are_equally_frequent() -> None:
    orders = drawn(replace(PLAN, jitter_probability=1.0), 24_000).orders
    counts = orders.bincount(minlength=24)
    assert len(counts) == 24
    assert 1000 - 5 * 31 < int(counts.min()) <= int(counts.max()) < 1000 + 5 * 31


@pytest.mark.parametrize("jitter", [(0.4, 0.6, 0.8, 0.2), (1.5, 0.1, 1.0, 0.5)])
def test_amounts_are_distributed_as_those_of_torchvision(jitter: tuple[float, float, float, float]) -> None:
    amounts = drawn(replace(PLAN, jitter=jitter), 5000).amounts.double().numpy()
    reference = v2.ColorJitter(*jitter)
    ranges = (reference.brightness, reference.contrast, reference.saturation, reference.hue)
    for column, (least, most) in enumerate(ranges):
        assert kstest(amounts[:, column], "uniform", args=(least, most - least)).pvalue > 1e-3
    assert np.abs(np.corrcoef(amounts.T) - np.eye(4)).max() < 4 / sqrt(5000)


def test_blurs_are_distributed_as_planned() -> None:
    sigmas = drawn(PLAN, 5000).sigmas.double().numpy()
    assert kstest(sigmas[sigmas > 0], "uniform", args=(0.1, 1.9)).pvalue > 1e-3


def test_views_of_one_image_and_images_of_one_view_are_drawn_apart() -> None:
    changes = draw_changes(PLAN, (40, 50), np.random.default_rng(0))
    assert len(set(changes.sigmas[changes.sigmas > 0].tolist())) > 0.99 * int((changes.sigmas > 0).sum())
    assert len(set(changes.amounts.flatten().tolist())) > 0.99 * changes.amounts.numel()


def test_what_a_step_draws_does_not_depend_on_the_other_steps() -> None:
    assert torch.equal(drawn(replace(STILL, flip_probability=0.5)).flips, drawn(PLAN).flips)
    assert torch.equal(drawn(replace(STILL, blur_probability=0.5)).sigmas, drawn(PLAN).sigmas)


def test_solarized_views_have_their_bright_levels_inverted_and_others_stay() -> None:
    plan = replace(STILL, solarize_probability=0.5)
    pixels = torch.arange(40 * 3 * 8 * 8, dtype=torch.int64).remainder(256).to(torch.uint8).view(40, 3, 8, 8)
    changes = draw_changes(plan, (1, 40), np.random.default_rng(0)).views(0, 1)
    assert 0 < int(changes.inverted.sum()) < 40
    changed = augment(pixels, changes, plan)
    for before, after, is_inverted in zip(pixels, changed, changes.inverted.tolist(), strict=True):
        expected = functional.solarize(before, 128) if is_inverted else before
        assert torch.equal(after, expected.float())
