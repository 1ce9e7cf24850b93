"""Training moves scores and head, leaves the network alone, and does what the recipe's settings say."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from smn_cli.errors import TrainingError
from smn_cli.masking.backbone import density
from tests.conftest import CONVNET, RESNET, VIT
from tests.small_runs import Workshop, digests, equal, head_of, masks_of, metrics, scores_of, trained_of

Make = Callable[..., Workshop]


@pytest.mark.parametrize("arch", [CONVNET, VIT, RESNET])
def test_frozen_parameters_and_buffers_hash_the_same_before_and_after_training(workshop: Make, arch: str) -> None:
    session = workshop(arch).start("run", steps=6, norm_stats="frozen")
    before, scores = digests(session.backbone.model), scores_of(session)
    for _ in session.steps():
        pass
    assert digests(session.backbone.model) == before
    assert density(masks_of(session)) < 1
    assert not equal(scores_of(session), scores)


def test_adapting_statistics_changes_all_running_means_and_variances_and_nothing_else(workshop: Make) -> None:
    session = workshop().start("run", steps=3, norm_stats="adapt")
    before = digests(session.backbone.model)
    for _ in session.steps():
        pass
    after = digests(session.backbone.model)
    changed = {name for name in after if after[name] != before[name]}
    # beside the counters of batches, which touch no output
    counters = {name for name in after if name.endswith("num_batches_tracked")}
    assert changed - counters == {name for name in after if name.endswith(("running_mean", "running_var"))}


def test_an_all_ones_start_computes_the_base_features_bit_for_bit(workshop: Make) -> None:
    """A learning rate of zero keeps every mask whole: the first and the last loss are those of the base network."""
    session = workshop().finish("run", steps=3, lr_scores=0.0)
    assert density(masks_of(session)) == 1.0
    assert all(bool((scores == 1).all()) for scores in scores_of(session).values())


def test_one_seed_gives_equal_scores_and_losses_and_another_seed_others(workshop: Make) -> None:
    place = workshop()
    first, second, other = (place.finish(name, steps=6, seed=seed) for name, seed in (("a", 3), ("b", 3), ("c", 4)))
    assert equal(scores_of(first), scores_of(second))
    assert metrics(first) == metrics(second)
    assert not equal(scores_of(first), scores_of(other))


def test_a_run_does_not_depend_on_the_global_random_state(workshop: Make) -> None:
    place = workshop()
    first = place.finish("a", steps=3)
    torch.manual_seed(12345)
    second = place.finish("b", steps=3)
    assert equal(scores_of(first), scores_of(second))


@pytest.mark.parametrize(("lr_scores", "lr_head", "least_fall"), [(50.0, 0.15, 0.15), (50.0, 0.0, 0.15)])
def test_the_loss_falls_on_a_few_images(workshop: Make, lr_scores: float, lr_head: float, least_fall: float) -> None:
    """Together with the head, and through the scores alone."""
    place = workshop(VIT)
    del place.images.good[8:]
    session = place.finish("run", steps=24, queue=0, lr_scores=lr_scores, lr_head=lr_head)
    losses = [line["loss"] for line in metrics(session)]
    assert sum(losses[-6:]) / 6 < sum(losses[:6]) / 6 - least_fall


def test_prototypes_stay_as_they_are_while_frozen_and_have_unit_length(workshop: Make) -> None:
    session = workshop().start("run", steps=4)  # the paper freezes them for 5,005 steps
    prototypes = head_of(session).prototypes.weight
    before = prototypes.detach().clone()
    projection = head_of(session).projection.weight.detach().clone()
    for _ in session.steps():
        torch.testing.assert_close(prototypes.norm(dim=1), torch.ones(8))
        torch.testing.assert_close(prototypes.detach(), before, rtol=0, atol=1e-6)
    assert float((head_of(session).projection.weight.detach() - projection).abs().max()) > 1e-3


def test_prototypes_have_unit_length_in_every_step_that_uses_them(workshop: Make) -> None:
    session = workshop().start("run", steps=5, recipe=thawed_recipe(), lr_head=2.0)
    prototypes = head_of(session).prototypes
    lengths: list[Tensor] = []
    directions: list[Tensor] = []

    def note(module: nn.Module, _inputs: Any) -> None:
        weight = module.get_parameter("weight").detach()
        lengths.append(weight.norm(dim=1))
        directions.append(weight.clone())

    prototypes.register_forward_pre_hook(note)
    for _ in session.steps():
        pass
    for length in lengths:
        torch.testing.assert_close(length, torch.ones(8))
    assert float((directions[-1] - directions[0]).abs().max()) > 1e-2


def thawed_recipe() -> str:
    """A recipe of the swapped loss whose prototypes train from the start."""
    from smn_cli.recipes import RECIPES

    return next(name for name in ("swav", "default") if name in RECIPES)


def test_the_learning_rates_follow_the_cosine_by_epoch(workshop: Make) -> None:
    session = workshop().finish("run", steps=9, lr_scores=40.0, lr_head=0.2)  # 24 images, three steps an epoch
    factors = [(1 + math.cos(math.pi * (step // 3) / 3)) / 2 for step in range(9)]
    lines = metrics(session)
    assert [line["lr_scores"] for line in lines] == pytest.approx([40 * factor for factor in factors])
    assert [line["lr_head"] for line in lines] == pytest.approx([0.2 * factor for factor in factors])


def test_every_step_is_logged_with_its_density_and_the_log_of_the_prototypes(workshop: Make) -> None:
    session = workshop().finish("run", steps=6)
    lines = metrics(session)
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert {line["log_k"] for line in lines} == {math.log(8)}
    assert lines[-1]["density"] == density(masks_of(session)) < lines[0]["density"]


def test_a_mask_that_empties_stops_the_run_and_names_its_tensor(workshop: Make) -> None:
    session = workshop(VIT).start("run", steps=6)
    steps = session.steps()
    next(steps)
    with torch.no_grad():
        trained_of(session)["blocks.2.mlp.fc1.weight"].fill_(-1)
    with pytest.raises(
        TrainingError, match=r"every one of the \d+ weights of blocks\.2\.mlp\.fc1\.weight would be cut"
    ):
        next(steps)


def test_a_loss_that_is_no_number_stops_the_run_and_the_last_checkpoint_stays(workshop: Make) -> None:
    place = workshop()
    session = place.start("run", steps=20, lr_head=1e38, save_every_s=0.0)
    with pytest.raises(TrainingError, match=r"the loss is nan at step \d+"):
        for _ in session.steps():
            pass
    assert place.resume("run").trainer.step == len(metrics(session)) < 20


def test_scores_start_where_the_options_say(workshop: Make) -> None:
    scores = scores_of(workshop().start("run", steps=1, score_start=2.5))
    assert all(bool((tensor == 2.5).all()) for tensor in scores.values())


@pytest.mark.slow
def test_the_queue_fills_once_the_run_is_a_fifth_done_and_changes_the_loss_only_when_full(workshop: Make) -> None:
    place = workshop(VIT)
    with_queue = metrics(place.finish("with", steps=15, queue=16, lr_scores=0.0))
    without = metrics(place.finish("without", steps=15, queue=0, lr_scores=0.0))
    same = [a["loss"] == b["loss"] for a, b in zip(with_queue, without, strict=True)]
    # 15 steps: pushes start at step 3 (from 0), two batches fill it, the third is the first to use it
    assert same[:5] == [True] * 5
    assert not any(same[5:])
