"""A cascade in the making: clusters, experts that start at the dispatcher's mask, and going on where it was stopped."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from smn_cli.cascade.options import CascadeOptions
from smn_cli.cascade.run import ROUTER_FILE, CascadeFolder, CascadeRun
from smn_cli.errors import CheckpointError, Interrupted, MismatchError, UsageError
from smn_cli.runs.pack import pack_run
from smn_cli.runs.run_folder import RunFolder
from smn_cli.training.session import StopSignal
from tests.conftest import RESNET, write_images
from tests.small_runs import Workshop, equal, masks_of

pytestmark = pytest.mark.slow


@pytest.fixture
def place(weights_file: Callable[[str], Path], tmp_path: Path) -> Workshop:
    """Images of three colours."""
    for colour in range(3):
        write_images(tmp_path / f"part{colour}", 12, seed=colour, colour=colour)
    images = tmp_path / "images"
    images.mkdir()
    for path in tmp_path.glob("part*/*.png"):
        path.rename(images / f"{path.parent.name}{path.name}")
    return Workshop(weights_file(RESNET), RESNET, images, tmp_path)


@pytest.fixture
def dispatcher(place: Workshop) -> RunFolder:
    """A finished run that has cut something."""
    session = place.finish("run", steps=9, batch_size=4, lr_scores=500.0, norm_stats="adapt")
    session.close()
    return session.folder


def test_an_expert_of_a_falling_density_starts_at_the_dispatchers_mask(place: Workshop) -> None:
    falling = {"mask_kind": "topk", "density": 0.5, "density_start": 1.0, "keep": "last"}
    session = place.finish("run", steps=3, batch_size=4, lr_scores=50.0, **falling)
    session.close()
    expert = begin(place, session.folder, "cascade").session(0)
    assert expert is not None
    formed, wanted = expert.trainer.source.masks(), masks_of(session)
    assert all(torch.equal(formed[name], mask) for name, mask in wanted.items())


def begin(place: Workshop, run: RunFolder, name: str, **given: Any) -> CascadeRun:
    """A cascade of two experts whose clusters are the images in turn: so few make no even ones of themselves."""
    backbone = place.backbone()
    options = CascadeOptions(**{"experts": 2, "steps": 3, **given})
    making = CascadeRun.start(place.runs / name, run, backbone, pack_run(run, backbone), options)
    making.cluster()
    routes = torch.arange(len(making.images)) % making.options.experts
    making.folder.save_tensors(ROUTER_FILE, {**making.router.tensors, "routes": routes})
    del making.routes
    return making


def train(making: CascadeRun) -> None:
    for number in range(making.options.experts):
        session = making.session(number)
        if session is not None:
            for _ in session.steps():
                pass
            session.close()


def digests_of(making: CascadeRun) -> list[str]:
    return [expert.header.adapted_digest for expert in making.adapters(pack_run)]


def test_experts_see_their_cluster_only_and_start_at_the_dispatchers_mask(
    place: Workshop, dispatcher: RunFolder
) -> None:
    making = begin(place, dispatcher, "cascade")
    sizes = making.cluster()
    assert (sum(sizes), len(sizes)) == (len(making.images), 2)
    assert making.images == dispatcher.read_images()
    expected = making.dispatcher.masks(making.backbone.model.state_dict())
    for number in range(2):
        session = making.session(number)
        assert session is not None
        seen = {*session.split.training, *session.split.held_out}
        routed = {path for path, route in zip(making.images, making.routes.tolist(), strict=True) if route == number}
        assert seen <= routed
        assert len(seen) >= min(len(routed), 3 * 4)
        assert equal(masks_of(session), {name: expected[name] for name in masks_of(session)})
        assert (session.plan.num_steps, session.plan.threshold) == (3, 0.0)
        session.close()
    assert digests_of(making) == [making.dispatcher.header.adapted_digest] * 2


def test_stopped_anywhere_it_goes_on_to_the_same_experts(place: Workshop, dispatcher: RunFolder) -> None:
    whole = begin(place, dispatcher, "whole")
    train(whole)
    begun = begin(place, dispatcher, "parts")
    first = begun.session(0)
    assert first is not None
    stop = StopSignal()
    steps = first.steps(stop)
    next(steps)
    stop.requested = True
    next(steps)
    with pytest.raises(Interrupted, match="after step 2 of 3"):
        next(steps)
    parts = CascadeRun.resume(place.runs / "parts", place.backbone())
    assert torch.equal(parts.routes, whole.routes)
    train(parts)
    assert digests_of(parts) == digests_of(whole)
    assert len({*digests_of(whole), whole.dispatcher.header.adapted_digest}) == 3
    again = CascadeRun.resume(place.runs / "parts", place.backbone())
    train(again)
    assert [record.kept_step for record in again.records()] == [3, 3]
    assert digests_of(again) == digests_of(whole)


def test_a_cascade_that_goes_on_clears_what_a_killed_making_left(place: Workshop, dispatcher: RunFolder) -> None:
    begin(place, dispatcher, "cascade").cluster()
    dead = place.runs / ".cascade.aaaaaaaa"
    dead.mkdir()
    os.utime(dead, (0, 0))
    CascadeRun.resume(place.runs / "cascade", place.backbone())
    assert not dead.exists()


def test_the_clusters_stay_when_the_dispatchers_run_is_gone(place: Workshop, dispatcher: RunFolder) -> None:
    making = begin(place, dispatcher, "cascade")
    sizes = making.cluster()
    dispatcher.path.rename(place.runs / "elsewhere")
    resumed = CascadeRun.resume(place.runs / "cascade", place.backbone())
    assert resumed.cluster() == sizes
    assert resumed.session(0) is not None


def test_clusters_are_what_the_router_says_of_the_dispatchers_features(place: Workshop, dispatcher: RunFolder) -> None:
    backbone = place.backbone()
    adapter = pack_run(dispatcher, backbone)
    making = CascadeRun.start(place.runs / "cascade", dispatcher, backbone, adapter, CascadeOptions(experts=3))
    sizes = making.cluster()
    assert torch.equal(making.routes, making.router.route(making.features()))
    assert sizes == torch.bincount(making.routes, minlength=3).tolist()
    base = place.backbone().model.state_dict()
    assert equal(dict(backbone.model.state_dict()), dict(base))


def test_experts_may_be_judged_where_the_dispatcher_was_not(place: Workshop, dispatcher: RunFolder) -> None:
    assert begin(place, dispatcher, "as the run").plan.keep == "last"
    judged = begin(place, dispatcher, "judged", keep="best")
    assert judged.plan.keep == "best"
    assert begin(place, dispatcher, "slow", lr_scores=0.0).plan.lr_scores == 0.0
    assert judged.plan.lr_scores == 500.0
    assert judged.session(0) is None  # thirty to judge by are more than there are


def test_a_cluster_too_small_is_served_by_the_dispatcher(place: Workshop, dispatcher: RunFolder) -> None:
    making = begin(place, dispatcher, "cascade", experts=10)
    sizes = making.cluster()
    small = [number for number, size in enumerate(sizes) if size < 4]
    assert small
    assert all(making.session(number) is None for number in small)
    records, digests = making.records(), digests_of(making)
    assert all((records[n].num_images, records[n].num_steps, records[n].kept_step) == (sizes[n], 0, 0) for n in small)
    assert all(digests[number] == making.dispatcher.header.adapted_digest for number in small)


def test_what_a_cascade_cannot_start_from_is_refused(place: Workshop, dispatcher: RunFolder) -> None:
    untrained = place.finish("untrained", steps=1, train="head")
    with pytest.raises(UsageError, match="did not learn a mask"):
        begin(place, untrained.folder, "cascade")
    with pytest.raises(UsageError, match="`combine` is odd: expected one of none"):
        begin(place, dispatcher, "cascade", combine="odd")
    assert not (place.runs / "cascade").exists()
    with pytest.raises(UsageError, match="is not a run folder of smn cascade"):
        begin(place, dispatcher, "run")
    begin(place, dispatcher, "cascade")
    with pytest.raises(UsageError, match="exists: `resume` continues it"):
        begin(place, dispatcher, "cascade")


def test_folders_of_runs_and_of_cascades_are_told_apart(place: Workshop, dispatcher: RunFolder) -> None:
    making = begin(place, dispatcher, "cascade")
    with pytest.raises(CheckpointError, match=r"is the folder of a cascade.*cascade\.safetensors, which needs no pack"):
        RunFolder.open(making.folder.path).read_config()
    with pytest.raises(CheckpointError, match="is the run of a single mask, not a cascade"):
        CascadeFolder.open(dispatcher.path).read_config()


def test_another_base_is_refused(place: Workshop, dispatcher: RunFolder) -> None:
    begin(place, dispatcher, "cascade")
    other = place.backbone()
    with torch.no_grad():
        other.model.get_parameter("conv1.0.weight").view(-1)[0] += 1
    with pytest.raises(MismatchError, match="not the one the run was started with"):
        CascadeRun.resume(place.runs / "cascade", other)
