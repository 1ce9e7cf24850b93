"""Who teaches a run at native size: joined spaces, a second model, a witness."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch

from smn_cli.adapters.fingerprint import fingerprint
from smn_cli.backbones.loading import load_backbone
from smn_cli.config.options import AdaptOptions
from smn_cli.config.teachers import parse_teacher
from smn_cli.errors import BackboneError, UsageError
from smn_cli.evaluation.features import Network
from smn_cli.evaluation.readouts import fit_readout, fit_stage_readout
from smn_cli.features import row_store
from smn_cli.features.cache import FeatureCache
from smn_cli.objectives import neighbour_search, neighbourhood
from smn_cli.objectives.table import refuse_idle_options
from smn_cli.runs import checked_files
from smn_cli.runs.pack import pack_run
from smn_cli.training import setup, teachers
from smn_cli.training.run_context import RunContext
from smn_cli.training.session import Session
from tests.conftest import CONVNET, RESNET, VIT
from tests.small_runs import Workshop, equal, log_of, masks_of, metrics
from tests.training.test_first_alarms import SHORT, with_many_images


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


def test_a_network_without_blocks_is_taught_by_its_last_layer(
    workshop: Callable[..., Workshop], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("smn_cli.training.resolve_plan.has_stages", lambda _model, _size: False)
    plan = workshop(CONVNET).start("run", **SHORT | {"size": None, "steps": 1}).plan
    assert plan.teachers == ("last",)
    assert plan.reasons["teachers"] == f"{CONVNET} has no stages that can be read, so its last layer teaches"


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
    assert len(spoken[0]) == 2  # of three steps after the second and the last
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
