"""How likely a likeness is by chance."""

import pytest
import torch

from smn_cli.judging.image_alarms import _normal_tail, enlargement_alarms, familiarity_alarms, own_standing


@pytest.mark.parametrize(
    ("deviations", "expected"), [(0.0, 0.5), (1.959963984540054, 0.025), (-1.0, 0.841344746068543), (9.0, 1.12859e-19)]
)
def test_the_tail_of_the_normal_is_that_of_the_tables(deviations: float, expected: float) -> None:
    assert _normal_tail(deviations) == pytest.approx(expected, rel=1e-5)


def test_images_whose_halves_are_most_alike_stand_at_one_and_the_least_alike_at_zero() -> None:
    halves = torch.eye(4)
    assert own_standing(halves, halves) == 1.0
    assert own_standing(halves, 1 - halves) == 0.0


@pytest.mark.parametrize(("scale", "num_classes", "num_alarms"), [(9.0, 200, 1), (1.0, 200, 0), (9.0, 20, 0)])
def test_a_classifier_that_is_sure_of_its_classes_knows_the_images(
    scale: float, num_classes: int, num_alarms: int
) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(num_classes, 16, generator=generator)
    features = scale * weight[torch.randint(num_classes, (50,), generator=generator)]
    features = features / 16**0.5 + 0.1 * torch.randn(50, 16, generator=generator)
    alarms = familiarity_alarms(features, weight / 16**0.5, torch.zeros(num_classes))
    assert [alarm.partition(":")[0] for alarm in alarms] == ["familiar images"] * num_alarms


@pytest.mark.parametrize(
    ("side", "alarms"),
    [(256.0, []), (180.0, []), (179.0, ["`size` 160"]), (144.0, ["`size` 128"]), (32.0, ["`size` 64"])],
)
def test_images_that_would_be_enlarged_are_told_with_the_size_that_suits_them(side: float, alarms: list[str]) -> None:
    found = enlargement_alarms(side, 224)
    assert len(found) == len(alarms)
    assert all(words in alarm for words, alarm in zip(alarms, found, strict=True))
