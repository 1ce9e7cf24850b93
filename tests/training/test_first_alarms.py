"""What ends a run before its first step: teachers that know no more, images too small, nobody to judge."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from smn_cli.config.teachers import parse_teacher
from smn_cli.data.images.validate import ImageSet
from smn_cli.reports.page import _unit
from smn_cli.training import certify, first_alarms, teachers
from tests.conftest import CONVNET, VIT, write_images
from tests.small_runs import Workshop

SHORT: dict[str, Any] = {
    "recipe": "default", "lr_scores": 0.5, "steps": 3, "local_views": 0, "prototypes": None, "queue": None,
}  # fmt: skip


def with_many_images(place: Workshop, folder: Path) -> Workshop:
    """Enough to hold some out."""
    write_images(folder, 60)
    place.images = ImageSet(good=sorted(folder.iterdir()))
    return place


def test_a_teacher_that_knows_less_than_the_last_layer_is_an_alarm(
    workshop: Callable[..., Workshop], monkeypatch: pytest.MonkeyPatch
) -> None:
    session = workshop(CONVNET).start("run", **SHORT, teacher=("stages",))
    agree, differ = (torch.full((50,), share) for share in (0.6, 0.3))
    noise = torch.linspace(-0.1, 0.1, 50)
    given = iter([agree + noise, differ, differ + noise, agree])
    monkeypatch.setattr(certify, "view_consistency", lambda *_views: next(given))
    [alarm] = certify.teacher_alarms(session.context, session.split.training)
    assert alarm.startswith("no better teacher: two views of an image find the same neighbours in 0.300 of the cases")
    assert certify.teacher_alarms(session.context, session.split.training) == []


def test_own_layers_are_read_in_one_pass_as_they_are_alone(workshop: Callable[..., Workshop]) -> None:
    session = workshop(CONVNET).start("run", **SHORT, teacher=("stages",))
    images = session.split.training
    last, [stages] = certify._readers(session.context, [parse_teacher("stages")])
    assert last.eye is stages.eye
    last.eye.look_at(images)
    for reader in (last, stages):
        teacher = teachers.open_teacher(reader.teacher.name, session.context)
        alone = certify._Reader(teacher, certify._Eye(teacher.network, last.eye.batches), slice(teacher.num_last, None))
        alone.eye.look_at(images)
        for found, expected in zip(reader.read(), alone.read(), strict=True):
            torch.testing.assert_close(found, expected, rtol=0, atol=0)


@pytest.mark.parametrize(("doubt", "expected"), [(0.1, [4]), (1.5, [4, 6])])
def test_a_first_part_of_the_images_decides_if_it_leaves_no_doubt(
    workshop: Callable[..., Workshop], monkeypatch: pytest.MonkeyPatch, doubt: float, expected: list[int]
) -> None:
    session = workshop(CONVNET).start("run", **SHORT, teacher=("stages",))
    monkeypatch.setattr(certify, "NUM_AT_ONCE", 4)
    looks: list[int] = []

    def consistency(first: torch.Tensor, _second: torch.Tensor) -> torch.Tensor:
        looks.append(len(first))
        of_the_base = len(looks) % 2 == 1
        return torch.full((50,), 0.3) if of_the_base else 0.5 + doubt * torch.linspace(-0.5, 0.5, 50)

    monkeypatch.setattr(certify, "view_consistency", consistency)
    assert certify.teacher_alarms(session.context, session.split.training[:6]) == []
    assert looks[::2] == looks[1::2] == expected


def test_that_alarm_ends_a_run_before_its_first_step(
    workshop: Callable[..., Workshop], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(first_alarms, "learnability_alarms", lambda *_: [])
    monkeypatch.setattr(first_alarms, "teacher_alarms", lambda *_: ["no better teacher: so it is"])
    place = with_many_images(workshop(CONVNET), tmp_path / "many")
    session = place.start("run", **SHORT, teacher=("stages",), keep="best")
    assert session.plan.num_holdout >= 30  # enough to judge by
    assert session.is_finished
    assert "no better teacher: so it is" in session.best_state.alarms[0]


def test_a_last_layer_that_teaches_itself_needs_a_witness_to_be_judged(
    workshop: Callable[..., Workshop], second: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("learnability_alarms", "enlargement_alarms", "familiarity_alarms"):
        monkeypatch.setattr(first_alarms, name, lambda *_: [])
    place = with_many_images(workshop(CONVNET), tmp_path / "many")
    native = SHORT | {"size": None, "steps": 1, "keep": "best", "teacher": ("last",)}
    session = place.start("alone", **native)
    assert session.is_finished
    [alarm] = session.best_state.alarms
    assert alarm.startswith("no judge: the last layer itself teaches")
    witnessed = place.start("witnessed", **native, witness=f"{VIT}={second}")
    assert (witnessed.best_state.alarms, _unit(witnessed).measure) == ([], "views")
    assert place.start("larger", **native | {"size": 48}).best_state.alarms == []
    assert place.start("beside", **native | {"teacher": ("last", f"{VIT}={second}")}).best_state.alarms == []


def test_another_model_is_not_asked_whether_it_knows_more(
    workshop: Callable[..., Workshop], second: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(first_alarms, "learnability_alarms", lambda *_: [])
    monkeypatch.setattr(first_alarms, "teacher_alarms", lambda *_: ["no better teacher: so it is"])
    place = with_many_images(workshop(CONVNET), tmp_path / "many")
    for number, taught_by in enumerate([(f"{VIT}={second}",), ("stages", f"{VIT}={second}")]):
        session = place.start(f"run{number}", **SHORT, teacher=taught_by, keep="best")
        assert session.best_state.alarms == []


def test_small_images_are_not_trained_on_without_a_witness(
    workshop: Callable[..., Workshop], second: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(first_alarms, "learnability_alarms", lambda *_: [])
    monkeypatch.setattr(first_alarms, "teacher_alarms", lambda *_: [])
    place = with_many_images(workshop(CONVNET), tmp_path / "many")  # of 40 pixels
    native = SHORT | {"size": None, "steps": 1, "keep": "best"}
    [alarm] = place.start("run", **native).best_state.alarms
    assert alarm.startswith("small images: their shorter side is 40 px, the network looks at 160")
    assert "set `size` 64" in alarm
    assert place.start("witnessed", **native, witness=f"{VIT}={second}").best_state.alarms == []
    assert place.start("asked", **native | {"size": 48, "teacher": ("stages",)}).best_state.alarms == []
