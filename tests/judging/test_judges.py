"""A judge is one class: a toy one decides what a run keeps; the one without labels asks two witnesses."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from smn_cli.data.preprocessing import Preprocessing
from smn_cli.data.views.crop_cache import CropCache
from smn_cli.data.views.loader import image_batches
from smn_cli.evaluation.features import extract_features
from smn_cli.evaluation.intervals import Gain
from smn_cli.judging.judges import HealthJudge, Judge, Judgement
from smn_cli.judging.looks import Candidate
from smn_cli.runs.run_result import read_learned
from tests.small_runs import Workshop, equal, log_of, masks_of

Make = Callable[..., Workshop]


class LikesTheSecond:
    """Thinks that the second state is much better than the base, and all others worse."""

    uses_labels = False

    def __init__(self) -> None:
        self.num_seen = 0

    def judge(self, candidate: Candidate) -> Judgement:
        self.num_seen += 1
        value = 1.0 if self.num_seen == 2 else -1.0
        return Judgement(Gain(value, value - 0.1, value + 0.1), True, {"seen": float(self.num_seen)})


def test_a_toy_judge_decides_what_is_kept(workshop: Make) -> None:
    session = workshop().start("run", keep="best", steps=3, lr_scores=500.0)
    session.best_state.alarms = []  # so few images leave none to judge by
    judge: Judge = LikesTheSecond()
    session.judge = judge
    seen = []
    for _ in session.steps():
        seen.append(masks_of(session))
    learned = read_learned(session.folder)
    assert (learned.step, learned.judge_gain) == (2, 1.0)
    assert equal({n: m.byte() for n, m in learned.masks.items()}, {n: m.byte() for n, m in seen[1].items()})
    assert not equal({n: m.byte() for n, m in seen[2].items()}, {n: m.byte() for n, m in seen[1].items()})
    evaluations = [line["evaluation"]["seen"] for line in log_of(session) if "evaluation" in line]
    assert evaluations == [1, 2, 3]


def striped(place: Path, count: int) -> list[Path]:
    """Images of one brightness each, with noise, and a bright upper left corner of random strength."""
    generator = np.random.default_rng(0)
    place.mkdir()
    for number in range(count):
        pixels = np.full((64, 64, 3), 40 + 150 * number // count, dtype=np.int64) + generator.integers(
            0, 20, (64, 64, 3)
        )
        pixels[:12, :12] += int(generator.integers(0, 60))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(place / f"{number:03d}.png")
    return sorted(place.iterdir())


def brightness(images: Tensor) -> Tensor:
    """(B, 2): alike wherever one looks in an image."""
    mean = images.mean(dim=(1, 2, 3))
    return torch.stack([torch.cos(mean), torch.sin(mean)], dim=1)


def corner(images: Tensor) -> Tensor:
    """(B, 2): of the first pixels alone, which another view does not see."""
    mean = 2 * images[:, :, :8, :8].mean(dim=(1, 2, 3)) - images.mean(dim=(1, 2, 3))
    return torch.stack([torch.cos(3 * mean), torch.sin(3 * mean)], dim=1)


@pytest.mark.parametrize(("candidate", "is_sound"), [(brightness, True), (corner, False)])
def test_better_neighbours_count_only_where_two_views_agree_as_often_as_before(
    tmp_path: Path, candidate: Callable[[Tensor], Tensor], is_sound: bool
) -> None:
    paths = striped(tmp_path / "images", 120)
    held_out, training = paths[::2], paths[1::2]
    preprocessing = Preprocessing(64, (0.5,) * 3, (0.5,) * 3, "bilinear")
    teacher = torch.nn.functional.normalize(torch.randn(120, 16, generator=torch.Generator().manual_seed(0)), dim=1)
    base, taught = Candidate(brightness), (teacher[::2], teacher[1::2])
    judge = HealthJudge(held_out, training, CropCache(paths, preprocessing), *taught, base, is_own_space=False)
    judgement = judge.judge(Candidate(candidate))
    assert judgement.is_sound is is_sound
    assert "teacher_nearness" not in judgement.measures
    assert 0 <= judgement.measures["view_consistency"] <= 1


@pytest.mark.parametrize(("witness_of", "is_sound"), [(brightness, True), (corner, False)])
def test_a_witness_has_to_find_the_neighbours_no_stranger_than_before(
    tmp_path: Path, witness_of: Callable[[Tensor], Tensor], is_sound: bool
) -> None:
    """The base sees corners; the candidate sees brightness, which a witness of corners does not know."""
    paths = striped(tmp_path / "images", 120)
    held_out, training = paths[::2], paths[1::2]
    preprocessing = Preprocessing(64, (0.5,) * 3, (0.5,) * 3, "bilinear")
    batches = image_batches([*held_out, *training], preprocessing)
    witness = extract_features(witness_of, batches)
    teacher = torch.nn.functional.normalize(torch.randn(120, 16, generator=torch.Generator().manual_seed(0)), dim=1)
    base, taught = Candidate(corner), (teacher[::2], teacher[1::2])
    judge = HealthJudge(
        held_out, training, CropCache(paths, preprocessing), *taught, base, is_own_space=False, witness=witness
    )
    judgement = judge.judge(Candidate(brightness))
    assert judgement.is_sound is is_sound
    assert (judgement.measures["witness_agreement"] > 0.9) is is_sound


def judge_of_corners(tmp_path: Path, *, teaches_itself: bool, has_witness: bool = True) -> HealthJudge:
    """The base sees corners, and so does its teacher: by that nothing is better. A witness sees brightness."""
    paths = striped(tmp_path / "images", 120)
    held_out, training = paths[::2], paths[1::2]
    preprocessing = Preprocessing(64, (0.5,) * 3, (0.5,) * 3, "bilinear")

    def seen_by(network: Callable[[Tensor], Tensor]) -> Tensor:
        return extract_features(network, image_batches([*held_out, *training], preprocessing))

    teacher_held_out, teacher_training = seen_by(corner).chunk(2)
    return HealthJudge(
        held_out,
        training,
        CropCache(paths, preprocessing),
        teacher_held_out,
        teacher_training,
        Candidate(corner),
        is_own_space=False,
        witness=seen_by(brightness) if has_witness else None,
        teaches_itself=teaches_itself,
    )


@pytest.mark.parametrize(("teaches_itself", "has_witness"), [(True, True), (False, True), (True, False)])
def test_where_the_base_teaches_itself_views_tell_of_a_gain_if_a_witness_agrees(
    tmp_path: Path, teaches_itself: bool, has_witness: bool
) -> None:
    judge = judge_of_corners(tmp_path, teaches_itself=teaches_itself, has_witness=has_witness)
    judgement = judge.judge(Candidate(brightness))
    assert judgement.is_sound
    assert (judgement.difference.low > 0) is (teaches_itself and has_witness)


@pytest.mark.parametrize(("lost", "teaches_itself", "is_sound"), [
    (0.004, True, True), (0.006, True, False), (0.006, False, True), (0.013, False, False),
])  # fmt: skip
def test_a_witness_forgives_less_where_likeness_to_the_teacher_is_no_support(
    tmp_path: Path, lost: float, teaches_itself: bool, is_sound: bool
) -> None:
    judge = judge_of_corners(tmp_path, teaches_itself=teaches_itself)
    agreement = judge._agreement(*judge.embed(Candidate(brightness)))
    assert agreement is not None
    judge._base_agreement = agreement + lost
    assert judge.judge(Candidate(brightness)).is_sound is is_sound
