"""What is kept: the best state beyond doubt, else the base; and the alarms that stop a run before it starts."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from smn_cli.adapters.fingerprint import fingerprint
from smn_cli.config.options import AdaptOptions
from smn_cli.data.images.validate import ImageSet
from smn_cli.data.preprocessing import Preprocessing
from smn_cli.data.views.loader import image_batches
from smn_cli.errors import Interrupted
from smn_cli.evaluation.features import Network, extract_features, on_device
from smn_cli.evaluation.intervals import Gain
from smn_cli.judging.best_state import BestState
from smn_cli.judging.image_alarms import learnability_alarms, own_standing
from smn_cli.judging.judges import Judgement
from smn_cli.judging.looks import Candidate
from smn_cli.runs.pack import pack_run
from smn_cli.runs.run_result import read_learned
from smn_cli.training.run_context import RunRequest
from smn_cli.training.session import Session, StopSignal
from tests.small_runs import Workshop

MASKS = {"a": torch.tensor([True, False])}
TINY = {"recipe": "default", "size": 32, "teacher_size": 48, "batch_size": 8, "steps": 10, "prototypes": 4}


def judgement(value: float, low: float, *, is_sound: bool = True, alarms: tuple[str, ...] = ()) -> Judgement:
    return Judgement(Gain(value, low, 2 * value - low), is_sound, {}, list(alarms))


def alarms_of(network: Network, images: list[Path], prepare: Preprocessing) -> list[str]:
    batches = list(image_batches(images, prepare))
    return learnability_alarms(network, batches, extract_features(network, batches))


def write_colours(folder: Path, num_images: int) -> list[Path]:
    """Plain images of one colour each, whose halves belong together for any network."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    paths = []
    for number in range(num_images):
        pixels = np.broadcast_to(generator.integers(0, 256, 3, dtype=np.uint8), (40, 40, 3))
        paths.append(folder / f"{number:03d}.png")
        Image.fromarray(np.ascontiguousarray(pixels)).save(paths[-1])
    return paths


@pytest.fixture
def colours(tmp_path: Path) -> ImageSet:
    return ImageSet(good=write_colours(tmp_path / "colours", 40))


def test_a_state_above_the_base_beyond_doubt_is_kept() -> None:
    best_state = BestState()
    assert best_state.consider(5, judgement(0.1, 0.02), MASKS, {})
    assert (best_state.best_step, best_state.best_gain) == (5, 0.1)
    assert torch.equal(best_state.tensors["a"], MASKS["a"])


@pytest.mark.parametrize(
    "refused",
    [
        judgement(0.1, -0.01),
        judgement(0.1, 0.0),
        judgement(0.1, 0.02, is_sound=False),
        judgement(0.1, 0.02, alarms=("collapse",)),
    ],
    ids=["interval holds 0", "interval ends at 0", "not sound", "alarm"],
)
def test_a_state_in_doubt_is_not(refused: Judgement) -> None:
    best_state = BestState()
    assert not best_state.consider(5, refused, MASKS, {})
    assert best_state.best_step == 0
    assert best_state.tensors == {}


def test_only_a_better_state_replaces_the_best() -> None:
    best_state = BestState()
    best_state.consider(5, judgement(0.2, 0.1), MASKS, {})
    best_state.consider(6, judgement(0.1, 0.09), {"a": ~MASKS["a"]}, {})
    assert best_state.best_step == 5
    assert torch.equal(best_state.tensors["a"], MASKS["a"])
    best_state.consider(7, judgement(0.3, 0.01), {"a": ~MASKS["a"]}, {})
    assert best_state.best_step == 7


def test_an_alarm_of_one_kind_is_told_once() -> None:
    best_state = BestState()
    for alarms in (("ruin: .1",), ("ruin: .2", "collapse: 3")):
        best_state.consider(1, judgement(0.1, 0.05, alarms=alarms), MASKS, {})
    assert best_state.alarms == ["ruin: .1", "collapse: 3"]


def test_what_is_kept_does_not_change_with_the_live_masks() -> None:
    best_state, live = BestState(), torch.tensor([True, True])
    best_state.consider(1, judgement(0.1, 0.05), {"a": live}, {})
    live[0] = False
    assert best_state.tensors["a"].tolist() == [True, True]


def test_copies_of_one_image_set_off_their_alarm(workshop: Callable[..., Workshop], colours: ImageSet) -> None:
    backbone = workshop().backbone()
    network = on_device(backbone.model, torch.device("cpu"))
    prepare = Preprocessing(32, backbone.mean, backbone.std, backbone.interpolation)
    assert alarms_of(network, [colours.good[0]] * 30, prepare)[0].startswith("copies:")


def test_noise_sets_off_its_alarm_and_colours_do_not(
    workshop: Callable[..., Workshop], colours: ImageSet, tmp_path: Path
) -> None:
    backbone = workshop().backbone()
    network = on_device(backbone.model, torch.device("cpu"))
    prepare = Preprocessing(32, backbone.mean, backbone.std, backbone.interpolation)
    generator = np.random.default_rng(0)
    noise = [tmp_path / f"noise{number}.png" for number in range(40)]
    for path in noise:
        Image.fromarray(generator.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path)
    assert alarms_of(network, noise, prepare)[0].startswith("no structure:")
    assert alarms_of(network, colours.good, prepare) == []


def test_own_standing_counts_the_halves_that_are_less_alike_than_the_own_one() -> None:
    left = torch.eye(4)
    assert own_standing(left, left) == 1.0
    assert own_standing(left, left.roll(1, dims=0)) == 0.0
    own_is_second = torch.tensor([[0.5, 0.9, 0.0], [0.0, 0.5, 0.9], [0.9, 0.0, 0.5]])
    assert own_standing(torch.eye(3), own_is_second.T) == 0.5


def start(workshop: Workshop, colours: ImageSet, name: str, **given: object) -> Session:
    options = AdaptOptions(**{**TINY, **given})  # type: ignore[arg-type]
    request = RunRequest(workshop.runs / name, colours, options, str(workshop.weights))
    return Session.start(request, workshop.backbone())


def test_a_run_that_beats_nothing_packs_to_the_identity(workshop: Callable[..., Workshop], colours: ImageSet) -> None:
    place = workshop()
    session = start(place, colours, "run", lr_scores=0.0)
    for _ in session.steps():
        pass
    assert session.best_state.best_step == 0
    adapter = pack_run(session.folder, place.backbone())
    assert adapter.header.density == 1.0
    assert adapter.header.adapted_digest == fingerprint(place.backbone().model.state_dict()).digest


def test_training_that_cannot_go_on_ends_in_the_identity_with_an_alarm(
    workshop: Callable[..., Workshop], colours: ImageSet
) -> None:
    session = start(workshop(), colours, "run", threshold=1000.0)
    for _ in session.steps():
        pass
    learned = read_learned(session.folder)
    assert learned.is_finished
    assert "would be cut" in learned.alarms[0]
    assert all(bool(mask.all()) for mask in learned.masks.values())


def test_a_resumed_run_keeps_what_the_uninterrupted_one_keeps(
    workshop: Callable[..., Workshop], colours: ImageSet
) -> None:
    place = workshop()
    whole = start(place, colours, "whole", lr_scores=0.3)
    for _ in whole.steps():
        pass
    stop, halves = StopSignal(), start(place, colours, "halves", lr_scores=0.3)
    steps = halves.steps(stop)
    while next(steps).step < 4:
        pass
    stop.requested = True
    assert next(steps).step == 5
    with pytest.raises(Interrupted, match="stopped after step 5"):
        next(steps)
    resumed = place.resume("halves")
    for _ in resumed.steps():
        pass
    assert resumed.best_state.best_step == whole.best_state.best_step
    assert resumed.best_state.best_gain == whole.best_state.best_gain
    assert resumed.best_state.alarms == whole.best_state.alarms
    assert resumed.best_state.tensors.keys() == whole.best_state.tensors.keys()
    for name, scores in whole.trainer.source.trained.items():
        assert torch.equal(resumed.trainer.source.trained[name], scores)


def test_the_judge_reads_its_images_once(workshop: Callable[..., Workshop]) -> None:
    place = workshop()
    session = place.start("run", steps=3)
    first = session.health.judge(Candidate(session.network()))
    for path in place.images.good:
        path.unlink()
    assert session.health.judge(Candidate(session.network())) == first
