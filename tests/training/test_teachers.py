"""Who teaches a run at native size: joined spaces, a second model, and whether anybody is worth learning from."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file

from smn_cli.adapters.fingerprint import fingerprint
from smn_cli.backbones.loading import load_backbone
from smn_cli.config.options import AdaptOptions
from smn_cli.config.teachers import parse_teacher
from smn_cli.data.images.validate import ImageSet
from smn_cli.errors import BackboneError, UsageError
from smn_cli.evaluation.features import Network
from smn_cli.evaluation.readouts import fit_readout, fit_stage_readout
from smn_cli.features import row_store
from smn_cli.features.cache import FeatureCache
from smn_cli.objectives import neighbour_search, neighbourhood
from smn_cli.objectives.table import refuse_idle_options
from smn_cli.reports.page import _unit
from smn_cli.runs import checked_files
from smn_cli.runs.pack import pack_run
from smn_cli.training import certify, first_alarms, setup, teachers
from smn_cli.training.run_context import RunContext
from smn_cli.training.session import Session
from tests.conftest import CONVNET, RESNET, VIT, write_images
from tests.small_runs import Workshop, equal, log_of, masks_of, metrics

SHORT: dict[str, Any] = {
    "recipe": "default", "lr_scores": 0.5, "steps": 3, "local_views": 0, "prototypes": None, "queue": None,
}  # fmt: skip


@pytest.fixture
def second(tmp_path: Path) -> Path:
    """Weights of a ViT that is as wide as nothing else here."""
    torch.manual_seed(5)
    path = tmp_path / "second.safetensors"
    save_file(timm.create_model(VIT).state_dict(), path)
    return path


def with_many_images(place: Workshop, folder: Path) -> Workshop:
    """Enough to hold some out."""
    write_images(folder, 60)
    place.images = ImageSet(good=sorted(folder.iterdir()))
    return place


def embedded(session: Session, name: str) -> torch.Tensor:
    """What one teacher says of a run's training images."""
    teacher = teachers.open_teacher(parse_teacher(name), session.context)
    return teacher.own(teacher.embed(session.split.training, session.execution))


def finished_without(file: Path, place: Workshop, parts: Session) -> Session:
    """The run "parts" after a step, its second model gone, resumed to its end."""
    next(parts.steps())
    parts._save()
    file.unlink()
    resumed = place.resume("parts")
    for _ in resumed.steps():
        pass
    return resumed


def test_at_its_own_size_the_stages_teach_and_below_it_only_when_asked(workshop: Callable[..., Workshop]) -> None:
    place = workshop(CONVNET)
    small = place.start("small", **SHORT)
    assert (small.plan.objective, small.plan.teachers) == ("taught", ())
    native = place.start("native", **SHORT | {"size": None, "steps": 1})
    assert (native.plan.objective, native.plan.teachers) == ("neighbourhood", ("stages",))
    assert native.plan.views.global_size == native.backbone.native_size == 160
    assert place.start("asked", **SHORT, teacher=("last",)).plan.teachers == ("last",)


@pytest.mark.parametrize("arch", [VIT, CONVNET, RESNET])
def test_every_kind_of_network_goes_the_road_at_its_own_size(workshop: Callable[..., Workshop], arch: str) -> None:
    session = workshop(arch).finish("run", **SHORT | {"size": None, "steps": 2})
    assert session.plan.teachers == ("stages",)
    adapter = pack_run(session.folder, session.backbone)
    assert 0 < adapter.density < 1
    assert adapter.preprocessing.size == session.backbone.native_size


def test_several_teachers_stand_side_by_side(workshop: Callable[..., Workshop], second: Path) -> None:
    place = workshop(CONVNET)
    names = ("stages", "last", f"{VIT}={second}")
    session = place.start("run", **SHORT, teacher=names)
    parts = []
    for name in names:
        features = embedded(session, name)
        readout = fit_stage_readout(features) if name == "stages" else fit_readout(features, "whitened")
        parts.append(readout(features))
    space = session.folder.load_tensors("teacher.safetensors")["training"].float()
    torch.testing.assert_close(space @ space.T, sum(part @ part.T for part in parts) / 3, rtol=0, atol=2e-3)
    facts = session.folder.read_config()["teachers"]
    assert [fact["name"] for fact in facts] == ["stages", "last", VIT]  # a path is nobody else's business
    assert facts[2]["size"] == timm.get_pretrained_cfg(VIT).input_size[-1]
    assert facts[2]["digest"] == fingerprint(load_backbone(VIT, second).model.state_dict()).digest


def test_the_adapter_tells_who_taught_and_no_path(workshop: Callable[..., Workshop], second: Path) -> None:
    session = workshop(CONVNET).finish("run", **SHORT, teacher=(f"{VIT}={second}",))
    adapter = pack_run(session.folder, session.backbone)
    assert [fact["arch"] for fact in adapter.header.provenance["teachers"]] == [VIT]
    assert str(second) not in str(adapter.header.provenance)


def test_a_run_with_a_second_model_resumes_without_it(workshop: Callable[..., Workshop], second: Path) -> None:
    place = workshop(CONVNET)
    name = f"{VIT}={second}"
    whole = place.finish("whole", **SHORT, teacher=(name,))
    parts = place.start("parts", **SHORT, teacher=(name,))
    resumed = finished_without(second, place, parts)
    assert equal(masks_of(resumed), masks_of(whole))


def test_a_model_that_cannot_be_had_leaves_nothing_behind(workshop: Callable[..., Workshop]) -> None:
    place = workshop(CONVNET)
    with pytest.raises(BackboneError, match="no_such_net is not a timm model"):
        place.start("run", **SHORT, teacher=("no_such_net",))
    assert not (place.runs / "run").exists()


@pytest.mark.parametrize(
    ("text", "reason"),
    [("no_such_net", "no_such_net is not a timm model"), (f"{VIT}=no.pth", "there is no file no.pth")],
)
def test_a_teacher_that_cannot_be_had_is_refused_before_any_image_is_read(text: str, reason: str) -> None:
    teachers.check_teachers(("stages", "last", VIT))
    with pytest.raises(BackboneError, match=reason):
        teachers.check_teachers((text,))


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
    last.eye.look_at(images, 0)
    for reader in (last, stages):
        teacher = teachers.open_teacher(reader.teacher.name, session.context)
        alone = certify._Reader(
            teacher, certify._Eye(teacher.network, teacher.preprocessing), slice(teacher.num_last, None)
        )
        alone.eye.look_at(images, 0)
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


def test_a_network_without_blocks_is_taught_by_its_last_layer(
    workshop: Callable[..., Workshop], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("smn_cli.training.resolve_plan.has_stages", lambda _model, _size: False)
    plan = workshop(CONVNET).start("run", **SHORT | {"size": None, "steps": 1}).plan
    assert plan.teachers == ("last",)
    assert plan.reasons["teachers"] == f"{CONVNET} has no stages that can be read, so its last layer teaches"


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


def test_a_teacher_that_saw_the_images_before_is_not_asked_again(
    workshop: Callable[..., Workshop], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = workshop(CONVNET).start("run", **SHORT, teacher=("stages",))
    images, cached = session.split.training, replace(session.execution, cache=FeatureCache(tmp_path / "cache"))
    monkeypatch.setattr("smn_cli.features.cache_key.SETTLED_AFTER_NS", -(10**12))
    stages = teachers.open_teacher(parse_teacher("stages"), session.context)
    first = stages.embed(images, cached)
    assert torch.equal(first, stages.embed(images, session.execution))

    def fails(_images: torch.Tensor) -> torch.Tensor:
        raise ZeroDivisionError

    deaf = replace(stages, network=fails)
    assert torch.equal(deaf.embed(images, cached), first)
    for other in (replace(deaf, name=parse_teacher("last")), replace(deaf, facts=deaf.facts | {"digest": "0"})):
        with pytest.raises(ZeroDivisionError):
            other.embed(images, cached)


def test_the_stages_pass_gives_the_memory_its_start(
    workshop: Callable[..., Workshop], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = workshop(CONVNET)
    settings = SHORT | {"teacher": ("stages",), "steps": 1}
    passes: list[int] = []
    whole = RunContext.features

    def counted(context: RunContext, network: Network, images: list[Path]) -> torch.Tensor:
        passes.append(len(images))
        return whole(context, network, images)

    monkeypatch.setattr(RunContext, "features", counted)
    native = place.start("native", **settings | {"size": None})
    memory = native.trainer.objective.state()["memory"].clone()
    assert passes == []
    features = whole(native.context, native.context.base(), native.split.training)
    unit = torch.nn.functional.normalize(features, dim=1)
    expected = torch.nn.functional.normalize(unit - unit.mean(dim=0), dim=1).half().float()
    torch.testing.assert_close(memory, expected, rtol=0, atol=1e-3)  # the teacher's pass is of folded weights
    place.start("small", **settings)  # its teacher sees larger images
    assert len(passes) == 1


def test_a_witness_speaks_in_every_judgement_also_after_a_pause(
    workshop: Callable[..., Workshop], second: Path, tmp_path: Path
) -> None:
    place = with_many_images(workshop(CONVNET), tmp_path / "many")
    settings = SHORT | {"keep": "best", "teacher": ("stages",), "witness": f"{VIT}={second}"}
    whole, parts = (place.start(name, **settings) for name in ("whole", "parts"))
    for session in (whole, parts):
        session.best_state.alarms = []  # random weights know nothing
    for _ in whole.steps():
        pass
    resumed = finished_without(second, place, parts)
    spoken = [
        [line["evaluation"]["witness_agreement"] for line in log_of(session) if "evaluation" in line]
        for session in (whole, resumed)
    ]
    assert spoken[0] == spoken[1]
    assert len(spoken[0]) == 3
    assert str(second) not in str(pack_run(whole.folder, whole.backbone).header.provenance)


def test_the_backbone_is_no_witness_of_its_own() -> None:
    for name in ("stages", "last"):
        with pytest.raises(UsageError, match="cannot be its own witness"):
            AdaptOptions(witness=name)
    with pytest.raises(UsageError, match="`witness` has no effect with `recipe` default and `labels`"):
        refuse_idle_options(AdaptOptions(labels="folders", witness=VIT))


def test_the_road_of_very_many_images_leads_where_that_of_few_does(
    workshop: Callable[..., Workshop], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mapped features in half precision, a memory in half precision, a loss in blocks, neighbours by faiss."""
    pytest.importorskip("faiss", reason="needs the scale extra")
    place = workshop(CONVNET)
    few = place.finish("few", **SHORT, teacher=("stages", "last"), seed=0)
    monkeypatch.setattr(row_store, "MAX_BYTES", 0)
    monkeypatch.setattr(row_store, "MANY", 7)
    for module in (neighbourhood, setup):
        monkeypatch.setattr(module, "MANY", 7)
    monkeypatch.setattr(checked_files, "MAPPED_FROM_BYTES", 0)
    monkeypatch.setattr(neighbour_search, "MAX_EXACT", 7)
    many = place.finish("many", **SHORT, teacher=("stages", "last"), seed=0)
    assert many.trainer.objective.state()["memory"].dtype == torch.half
    losses = [[line["loss"] for line in metrics(session)] for session in (few, many)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-2)
    assert losses[1] != losses[0]
    resumed = place.resume("many")
    assert torch.equal(resumed.trainer.objective.state()["memory"], many.trainer.objective.state()["memory"])
