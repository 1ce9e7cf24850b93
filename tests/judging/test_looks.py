"""Images that are looked at again and again, behind a trunk that is run once."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import Tensor

from smn_cli.backbones.trunk import NUM_TRIED, CutNetwork, cut_before_trained
from smn_cli.judging import looks
from smn_cli.judging.image_alarms import NUM_AT_ONCE, learnability_alarms
from smn_cli.judging.looks import Activations, Candidate, Looks
from smn_cli.masking.backbone import run_backbone
from tests.small_runs import Workshop


class Cut:
    """test_resnet before its third stage, with weights that are halved there, and how often its trunk ran."""

    def __init__(self) -> None:
        self.model = timm.create_model("test_resnet", num_classes=0).eval().requires_grad_(requires_grad=False)
        names = [name for name, _ in self.model.named_parameters() if name.startswith(("layer3", "layer4"))]
        self.cut = cut_before_trained(self.model, names, 32)
        self.weights = {name: self.model.get_parameter(name) / 2 for name in names}
        self.num_seen = 0

    def trunk(self, images: Tensor) -> Tensor:
        self.num_seen += len(images)
        return self.cut.trunk(images)

    def candidate(self, weights: dict[str, Tensor]) -> Candidate:
        return Candidate(
            lambda images: run_backbone(self.model, images, weights), None, lambda acts: self.cut.late(acts, weights)
        )


def rounds() -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return iter([torch.rand(4, 3, 32, 32, generator=generator), torch.rand(2, 3, 32, 32, generator=generator)])


def test_a_trunk_runs_once_and_features_are_the_same_bits() -> None:
    cut = Cut()
    shown = Looks(rounds, 6, cut.trunk)
    for weights in ({}, cut.weights, {}):
        whole = Looks(rounds, 6).features(cut.candidate(weights))
        assert torch.equal(shown.features(cut.candidate(weights)), whole)
    assert cut.num_seen == 6


def test_activations_that_do_not_fit_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looks, "free_memory", lambda: 1000)
    cut = Cut()
    shown = Looks(rounds, 6, cut.trunk)
    for weights in ({}, cut.weights):
        assert torch.equal(shown.features(cut.candidate(weights)), Looks(rounds, 6).features(cut.candidate(weights)))
    assert cut.num_seen == 6  # then whole networks look


def seen_before(cut: Cut, num_images: int) -> Activations:
    """What a trunk gave for the first images while somebody else looked at them all."""
    activations = Activations(num_images)
    for batch in rounds():
        activations.note(cut.cut.trunk(batch))
    return activations


@pytest.mark.parametrize(("num_images", "num_new"), [(6, 0), (5, 1), (4, 0)])
def test_what_somebody_saw_before_is_not_looked_at_again(num_images: int, num_new: int) -> None:
    """Whole batches: the last one would not be the same bits with other images beside its own."""
    cut = Cut()

    def own_rounds() -> Iterator[Tensor]:
        first, second = rounds()
        return iter([first, second[: num_images - 4]] if num_images > 4 else [first])

    shown = Looks(own_rounds, num_images, cut.trunk, seen_before(cut, num_images))
    for weights in ({}, cut.weights):
        candidate = cut.candidate(weights)
        whole = Looks(own_rounds, num_images).features(candidate)
        behind = replace(candidate, network=lambda _images: pytest.fail("a whole network was run"))
        assert torch.equal(shown.features(behind), whole)
    assert cut.num_seen == num_new


def test_what_found_no_room_is_looked_at_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    cut = Cut()
    monkeypatch.setattr(looks, "free_memory", lambda: 1000)
    nothing = seen_before(cut, 6)
    assert nothing.batches == []
    assert Looks(rounds, 6, cut.trunk, nothing).features(cut.candidate({})).shape == (6, cut.model.num_features)
    assert cut.num_seen == 6


def test_a_candidate_without_a_late_part_is_run_whole() -> None:
    cut = Cut()
    whole = Candidate(lambda images: run_backbone(cut.model, images, cut.weights))
    assert Looks(rounds, 6, cut.trunk).features(whole).shape == (6, cut.model.num_features)
    assert cut.num_seen == 0


def test_a_run_is_judged_behind_its_trunk_as_it_is_judged_whole(workshop: Callable[[str], Workshop]) -> None:
    session = workshop("test_resnet").finish("late", mask_only=("name:layer4.*",))
    assert session.context.cut is not None
    candidate = session.candidate()
    behind = session.health.judge(candidate)
    assert session.health.judge(Candidate(candidate.network)) == behind
    session.close()


def test_the_judge_knows_of_the_teachers_look_and_one_that_comes_later_sees_the_same(
    workshop: Callable[[str], Workshop], monkeypatch: pytest.MonkeyPatch
) -> None:
    own, shown = CutNetwork.trunk, []

    def trunk(self: CutNetwork, images: Tensor) -> Tensor:
        shown.append(len(images))
        return own(self, images)

    late: dict[str, Any] = {"recipe": "default", "mask_only": ("late:0.3",), "size": 160, "steps": 2}
    with monkeypatch.context() as patched:
        patched.setattr(CutNetwork, "trunk", trunk)
        session = workshop("test_resnet").start(
            "late", teacher=("stages",), local_views=0, prototypes=None, queue=None, **late
        )
        num_held_out = len(session.split.held_out)
        assert shown == [NUM_TRIED, num_held_out, num_held_out]  # that it can be cut, then two crops of each
        shown.clear()
        again = workshop("test_resnet").resume("late")
        assert sum(shown) == NUM_TRIED + 3 * num_held_out + len(session.split.searched)
    assert torch.equal(torch.cat(again.health.base_features), torch.cat(session.health.base_features))
    assert again.health.base_health == session.health.base_health


def test_the_first_hundred_images_tell_if_they_leave_no_doubt() -> None:
    """Halves that match: no more are asked for; halves that do not: all are."""
    generator = np.random.default_rng(0)
    seen: list[int] = []

    def network(images: Tensor) -> Tensor:
        seen.append(len(images))
        return images.mean(dim=(2, 3))

    def batches(*, is_structured: bool) -> Iterator[Tensor]:
        for _ in range(3):
            colours = torch.from_numpy(generator.random((NUM_AT_ONCE, 3, 1, 2))).float()
            yield (
                (colours[..., :1] if is_structured else colours)
                .repeat_interleave(8 if is_structured else 4, 3)
                .expand(-1, -1, 8, 8)
            )

    features = torch.rand(300, 8, generator=torch.Generator().manual_seed(0))
    assert learnability_alarms(network, batches(is_structured=True), features) == []
    assert sum(seen) == 2 * NUM_AT_ONCE
    seen.clear()
    assert learnability_alarms(network, batches(is_structured=False), features)
    assert sum(seen) == 6 * NUM_AT_ONCE
