"""What is kept of the trunk is what it gives, is seen in turn, and leaves a run as reproducible as it was."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from smn_cli.data.views.loader import RepeatedViewLoader, ViewBatch, ViewLoader
from smn_cli.errors import Interrupted, TrainingError
from smn_cli.runs.pack import pack_run
from smn_cli.training import trunk_cache
from smn_cli.training.session import Session, StopSignal
from smn_cli.training.trunk_cache import TrunkBatch, TrunkCache
from smn_cli.training.trunk_plan import cut_of_plan
from tests.conftest import CONVNET, RESNET
from tests.small_runs import Workshop, digests, equal, log_of, metrics, scores_of

Make = Callable[..., Workshop]
CACHED: dict[str, Any] = {
    "recipe": "default", "teacher": ("stages",), "steps": 12, "local_views": 0, "prototypes": None, "queue": None,
    "lr_scores": 0.3, "cache_trunk": "1GB",
}  # fmt: skip
"""24 images are seen four times: two draws of each are kept."""


def repeated(session: Session) -> RepeatedViewLoader:
    plan = session.plan
    return RepeatedViewLoader(session.split.training, plan.views, plan.batch_size, plan.seed)


def shuffled(session: Session, part: tuple[int, int] = (0, 1)) -> ViewLoader:
    plan = session.plan
    return ViewLoader(session.split.training, plan.views, plan.batch_size, plan.seed, part=part)


def filled(session: Session, made: Callable[[Tensor], Tensor] = lambda found: found) -> TrunkCache:
    """The cache of a run, of activations that are changed on the way."""
    network = cut_of_plan(session.backbone, session.plan, session.trainer.network.network)

    def activations(batch: ViewBatch) -> Tensor:
        return made(session.trainer.activations(network, batch))

    return TrunkCache.filled(
        network,
        repeated(session),
        activations,
        num_draws=session.plan.cached_views,
        folder=session.folder.path,
        tick=lambda done, total: None,
    )


def drawn(session: Session) -> dict[tuple[int, int], Tensor]:
    """Views (V, 3, size, size) of every draw of every image, as the network takes them."""
    loader = repeated(session)
    found: dict[tuple[int, int], Tensor] = {}
    for number, batch in enumerate(loader.batches(0, session.plan.cached_views * loader.steps_per_epoch)):
        views = session.trainer._images(batch, 0, session.plan.views.num_global)
        views = views.view(-1, len(batch.positions), *views.shape[1:]).transpose(0, 1)
        draw = number // loader.steps_per_epoch
        found |= {(draw, at): view for at, view in zip(batch.positions.tolist(), views, strict=True)}
    return found


@pytest.mark.parametrize("arch", [CONVNET, RESNET])
def test_features_of_what_is_kept_are_those_of_the_views_up_to_float16(workshop: Make, arch: str) -> None:
    session = workshop(arch).start("run", **CACHED, batch_size=7)  # the last batch of a pass overlaps
    cache, views = filled(session), drawn(session)
    weights = session.trainer.network.carried(session.trainer.source.effective_weights())
    seen = set()
    for task, batch in zip(shuffled(session).tasks(0, 12), cache.batches(shuffled(session), 0, 12), strict=True):
        assert batch.positions.tolist() == task.positions
        draw = task.step // 3 % 2
        seen |= {(draw, position) for position in task.positions}
        images = torch.cat([views[draw, position] for position in task.positions])
        expected = session.trainer._run(session.trainer.network.network, images, weights)
        found = batch.network.late(batch.activations, weights)
        torch.testing.assert_close(found, expected, rtol=2**-9, atol=2**-9 * float(expected.detach().abs().max()))
    assert len(seen) > 24, "both draws come"
    assert cache.num_bytes == session.plan.cached_bytes
    assert cache.rows.dtype == torch.float16


def test_two_views_of_an_image_are_kept_in_their_order(workshop: Make) -> None:
    options = CACHED | {"recipe": "swav", "teacher": (), "mask_only": ("late:0.3",)}
    session = workshop(RESNET).start("run", **options, batch_size=8)
    assert session.plan.views.num_global == 2
    cache, views = filled(session), drawn(session)
    weights = session.trainer.network.carried(session.trainer.source.effective_weights())
    batch = next(cache.batches(shuffled(session), 4, 5))
    found = session.trainer._features(batch, weights)
    for number, features in enumerate(found):
        images = torch.stack([views[1, position][number] for position in batch.positions.tolist()])
        expected = session.trainer._run(session.trainer.network.network, images, weights)
        torch.testing.assert_close(features, expected, rtol=2**-9, atol=2**-9 * float(expected.detach().abs().max()))


def test_bf16_activations_are_kept_as_they_are_and_large_ones_as_bf16(workshop: Make) -> None:
    session = workshop(RESNET).start("run", **CACHED)
    plain = filled(session)
    half = filled(session, lambda found: found.bfloat16())
    large = filled(session, lambda found: found * 1e6)
    assert (plain.rows.dtype, half.rows.dtype, large.rows.dtype) == (torch.float16, torch.bfloat16, torch.bfloat16)
    one, other, huge = (next(cache.batches(shuffled(session), 0, 1)).activations for cache in (plain, half, large))
    assert (one.dtype, other.dtype, huge.dtype) == (torch.float32, torch.bfloat16, torch.float32)
    both = 2**-8 + 2**-11  # a half of the last place of either format
    torch.testing.assert_close(other.float(), one, rtol=both, atol=1e-6)
    torch.testing.assert_close(huge / 1e6, one, rtol=both, atol=1e-6)
    assert float(huge.max()) > torch.finfo(torch.float16).max


def test_activations_come_in_the_memory_format_in_which_they_were_made(workshop: Make) -> None:
    session = workshop(RESNET).start("run", **CACHED)
    batch = next(filled(session).batches(shuffled(session), 0, 1))
    assert batch.activations.is_contiguous(memory_format=torch.channels_last)
    assert not batch.activations.is_contiguous()


def test_what_memory_does_not_hold_lies_in_a_file_without_a_name(
    workshop: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = workshop(RESNET).start("run", **CACHED)
    held = filled(session)
    before = sorted(session.folder.path.rglob("*"))
    sizes = []
    reserve = os.posix_fallocate
    monkeypatch.setattr(os, "posix_fallocate", lambda *words: sizes.append(words[2]) or reserve(*words))  # type: ignore[func-returns-value]
    monkeypatch.setattr(trunk_cache, "free_memory", lambda: 2 * held.num_bytes - 2)
    mapped = filled(session)
    assert sizes == [held.num_bytes]
    assert torch.equal(mapped.rows, held.rows)
    assert sorted(session.folder.path.rglob("*")) == before


def test_where_there_is_no_room_at_all_the_run_says_what_to_do(workshop: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    session = workshop(RESNET).start("run", **CACHED)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    monkeypatch.setattr(trunk_cache, "free_memory", lambda: 0)
    with pytest.raises(TrainingError, match=r"neither memory nor room in .*No space left.*`resume`.*`cache_trunk` off"):
        next(session.steps())


def test_a_process_of_several_gets_its_share_of_what_one_would_get(workshop: Make) -> None:
    session = workshop(RESNET).start("run", **CACHED)
    cache = filled(session)
    [whole] = cache.batches(shuffled(session), 5, 6)
    shares = [next(cache.batches(shuffled(session, (rank, 2)), 5, 6)) for rank in range(2)]
    for rank, share in enumerate(shares):
        assert torch.equal(share.positions, whole.positions[rank::2])
        assert torch.equal(share.activations, whole.activations[rank::2])


def test_steps_run_what_is_kept_and_change_nothing_of_the_trunk(
    workshop: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = workshop(CONVNET).start("run", **CACHED)
    before, batches = digests(session.backbone.model), []
    take = session.trainer.take_step
    monkeypatch.setattr(session.trainer, "take_step", lambda batch: batches.append(batch) or take(batch))  # type: ignore[func-returns-value]
    scores = scores_of(session)
    for _ in session.steps():
        pass
    assert len(batches) == 12
    assert all(isinstance(batch, TrunkBatch) for batch in batches)
    assert digests(session.backbone.model) == before
    assert not equal(scores_of(session), scores)


def test_one_seed_gives_equal_scores_and_another_seed_others(workshop: Make) -> None:
    place = workshop()
    first, second, other = (place.finish(name, **CACHED, seed=seed) for name, seed in (("a", 3), ("b", 3), ("c", 4)))
    assert equal(scores_of(first), scores_of(second))
    assert metrics(first) == metrics(second)
    assert not equal(scores_of(first), scores_of(other))


@pytest.mark.parametrize("arch", [CONVNET, RESNET])
def test_a_stopped_and_resumed_run_equals_the_uninterrupted_one_bit_for_bit(workshop: Make, arch: str) -> None:
    place = workshop(arch)
    whole = place.finish("whole", **CACHED)
    parts, stop = place.start("parts", **CACHED), StopSignal()
    steps = parts.steps(stop)
    for _ in range(7):
        next(steps)
    stop.requested = True
    next(steps)
    with pytest.raises(Interrupted):
        next(steps)
    resumed = place.resume("parts")
    assert resumed.trainer.step == 8
    for _ in resumed.steps():
        pass
    assert equal(scores_of(resumed), scores_of(whole))
    assert log_of(resumed) == log_of(whole)


def test_a_stop_while_the_trunk_looks_at_its_views_takes_no_step_and_the_run_resumes(workshop: Make) -> None:
    place = workshop()
    whole = place.finish("whole", **CACHED)
    with pytest.raises(Interrupted, match="stopped after step 0 of 12; the state is saved: continue with `resume`"):
        next(place.start("parts", **CACHED).steps(StopSignal(requested=True)))
    resumed = place.resume("parts")
    assert resumed.trainer.step == 0
    for _ in resumed.steps():
        pass
    assert equal(scores_of(resumed), scores_of(whole))
    assert log_of(resumed) == log_of(whole)


def test_without_a_cache_a_run_is_what_it_was_before_there_was_one(
    workshop: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = workshop()
    off = place.finish("off", **CACHED | {"cache_trunk": "off"})
    cached = place.finish("cached", **CACHED)
    monkeypatch.setattr("smn_cli.training.resolve_plan.with_trunk_cache", lambda plan, *_: plan)
    before = place.finish("before", **CACHED)
    assert equal(scores_of(off), scores_of(before))
    assert metrics(off) == metrics(before)
    assert not equal(scores_of(off), scores_of(cached))


def test_an_adapter_tells_of_what_was_kept_and_without_it_is_silent(workshop: Make) -> None:
    place = workshop()
    told = []
    for name, asked in (("cached", "1GB"), ("off", "off")):
        session = place.finish(name, **CACHED | {"cache_trunk": asked, "steps": 9})
        told.append(pack_run(session.folder, place.backbone()).header.provenance["plan"])
    cached, off = told
    assert cached["cached_views"] == 2
    assert off == {name: value for name, value in cached.items() if name != "cached_views"}


def test_a_pass_over_the_images_takes_all_in_whole_batches_and_the_next_draws_anew(
    image_folder: Path, workshop: Make
) -> None:
    session = workshop().start("run", **CACHED)
    loader = RepeatedViewLoader(sorted(image_folder.iterdir())[:11], session.plan.views, 4, 0)
    tasks = list(loader.tasks(0, 6))
    assert [task.positions for task in tasks] == [[0, 1, 2, 3], [4, 5, 6, 7], [7, 8, 9, 10]] * 2
    assert [task.step for task in tasks] == list(range(6))
    batches = list(loader.batches(0, 6))
    assert all(not torch.equal(batches[at].views[0], batches[at + 3].views[0]) for at in range(3))
    [again] = loader.batches(4, 5)
    assert torch.equal(again.views[0], batches[4].views[0])
