"""The one way from an image to a backbone's input, against values computed by hand."""

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from smn_cli.data.preprocessing import Preprocessing

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def test_a_single_colour_becomes_the_value_computed_by_hand() -> None:
    found = Preprocessing(8, MEAN, STD)(Image.new("RGB", (12, 20), (255, 0, 51)))
    expected = [(1 - 0.485) / 0.229, (0 - 0.456) / 0.224, (0.2 - 0.406) / 0.225]
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, torch.tensor(expected).view(3, 1, 1).expand(3, 8, 8), rtol=1e-6, atol=1e-6)


def test_an_image_of_the_right_size_keeps_its_pixels() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    found = Preprocessing(8, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))(Image.fromarray(pixels))
    assert torch.equal(found, torch.from_numpy(pixels).permute(2, 0, 1) / 255)


@pytest.mark.parametrize("is_wide", [True, False])
def test_of_a_longer_image_the_middle_is_taken(is_wide: bool) -> None:
    pixels = np.zeros((8, 24, 3), dtype=np.uint8)
    pixels[:, 8:16] = 255
    image = Image.fromarray(pixels if is_wide else pixels.transpose(1, 0, 2))
    found = Preprocessing(8, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))(image)
    assert torch.equal(found, torch.ones(3, 8, 8))


def test_the_shorter_side_is_resized_to_the_size_without_a_border() -> None:
    pixels = np.zeros((16, 48, 3), dtype=np.uint8)
    pixels[:, 16:32] = 255
    found = Preprocessing(8, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), "nearest")(Image.fromarray(pixels))
    assert torch.equal(found, torch.ones(3, 8, 8))


def test_halving_by_area_is_the_mean_of_four_pixels() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (16, 16, 3), dtype=np.uint8)
    found = Preprocessing(8, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), "box")(Image.fromarray(pixels))
    expected = pixels.reshape(8, 2, 8, 2, 3).astype(float).mean(axis=(1, 3)) / 255
    # rounded to 8 bits after the rows and after the columns
    assert float((found.permute(1, 2, 0) - torch.from_numpy(expected)).abs().max()) <= 1.01 / 255


def test_batches_and_single_images_are_normalised_alike() -> None:
    prepare = Preprocessing(4, MEAN, STD)
    pixels = torch.randint(256, (5, 3, 4, 4), dtype=torch.uint8)
    one_by_one = torch.stack([prepare.normalize(image) for image in pixels])
    assert torch.equal(prepare.normalize(pixels), one_by_one)


def test_json_brings_back_the_same_preprocessing() -> None:
    import json

    prepare = Preprocessing(160, MEAN, STD, "bilinear")
    assert Preprocessing.from_json(json.loads(json.dumps(prepare.to_json()))) == prepare


GOOD: dict[str, Any] = {"size": 8, "mean": [0, 0, 0], "std": [1, 1, 1], "interpolation": "bicubic"}


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"interpolation": "magic"}, ValueError),
        ({"mean": [0, 0]}, ValueError),
        ({"std": [1, 0, 1]}, ValueError),
        ({"std": [1, float("nan"), 1]}, ValueError),
        ({"mean": "abc"}, ValueError),
        ({"mean": None}, TypeError),
        ({"size": None}, TypeError),
        ({"size": 0}, ValueError),
        ({"size": 10**9}, ValueError),
        ({"mean": [0, float("inf"), 0]}, ValueError),
    ],
)
def test_unfit_json_is_refused(change: dict[str, Any], kind: type[Exception]) -> None:
    assert Preprocessing.from_json(GOOD).size == 8
    with pytest.raises(kind):
        Preprocessing.from_json({**GOOD, **change})


def test_a_missing_field_is_refused() -> None:
    with pytest.raises(KeyError):
        Preprocessing.from_json({name: value for name, value in GOOD.items() if name != "std"})


def test_bytes_and_numbers_are_normalised_to_the_same_bits_and_left_alone() -> None:
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(2, 3, 16, 16).contiguous()
    numbers = levels.float()
    prepare = Preprocessing(16, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (prepare.mean, prepare.std))
    assert torch.equal(prepare.normalize(levels), (numbers / 255 - mean) / std)
    assert torch.equal(prepare.normalize(numbers), prepare.normalize(levels))
    assert torch.equal(numbers, levels.float())
