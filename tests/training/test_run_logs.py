"""What a run tells TensorBoard, W&B and MLflow is what metrics.jsonl says, each step once, also after a kill."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from smn_cli.distributed import Team
from smn_cli.errors import Interrupted, UsageError
from smn_cli.training.run_context import Execution
from smn_cli.training.run_logs import check_logs, opened_logs, read_identities, scalars_of
from smn_cli.training.session import Session, StopSignal
from tests.conftest import Outcome
from tests.small_runs import Workshop, log_of

needs_tensorboard = pytest.mark.skipif(find_spec("tensorboard") is None, reason="needs the tensorboard extra")
Make = Callable[..., Workshop]
Told = dict[str, list[tuple[int, float]]]
STEPS = ["train/density", "train/log_k", "train/loss", "train/lr_head", "train/lr_scores", "train/num_flips"]


def events(folder: Path) -> Told:
    """Scalars by name as TensorBoard's own reader has them, with their steps."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    reader = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0})
    reader.Reload()
    return {name: [(e.step, e.value) for e in reader.Scalars(name)] for name in reader.Tags()["scalars"]}


def expected(session: Session) -> Told:
    """The same, of metrics.jsonl."""
    told: Told = {}
    for record in log_of(session):
        for name, value in scalars_of(record).items():
            told.setdefault(name, []).append((record["step"], value))
    return told


def rounded(told: Told) -> dict[str, list[tuple[int, Any]]]:
    """The same for a comparison: event files hold float32."""
    return {name: [(step, pytest.approx(value, rel=1e-6)) for step, value in rows] for name, rows in told.items()}


def logging(place: Workshop, *names: str, **execution: Any) -> Callable[..., Session]:
    """A function that starts the run "run", or resumes it, with logs."""

    def make(*, resume: bool = False, **options: Any) -> Session:
        session = place.resume("run") if resume else place.start("run", **options)
        object.__setattr__(session.execution, "logs", names)
        return session

    return make


def take(session: Session, num_steps: int | None = None) -> Session:
    """Take so many steps, or all, and leave as a killed process does: nothing is saved."""
    for number, _ in enumerate(session.steps(), 1):
        if number == num_steps:
            break
    return session


def stop_after(session: Session, num_steps: int) -> None:
    stop = StopSignal()
    steps = session.steps(stop)
    for _ in range(num_steps - 1):
        next(steps)
    stop.requested = True
    next(steps)
    with pytest.raises(Interrupted):
        next(steps)


def test_names_say_what_a_number_is_of() -> None:
    step = {"step": 3, "num_steps": 9, "loss": 2.5, "density": 0.75, "num_flips": 4, "lr_scores": 0.1, "lr_head": 0.2}
    gain = {"value": 0.5, "low": -0.5, "high": 1.5}
    judged = {"step": 3, "evaluation": {"rank": 7.5, "is_sound": True, "gain": gain, "alarms": ["x"]}}
    assert scalars_of(step) == {
        "train/loss": 2.5, "train/density": 0.75, "train/num_flips": 4, "train/lr_scores": 0.1, "train/lr_head": 0.2,
    }  # fmt: skip
    assert scalars_of(judged) == {
        "judge/rank": 7.5, "judge/is_sound": 1, "judge/gain": 0.5, "judge/gain_low": -0.5, "judge/gain_high": 1.5,
    }  # fmt: skip


@pytest.mark.slow
@needs_tensorboard
def test_event_files_hold_what_metrics_jsonl_holds(workshop: Make) -> None:
    session = take(logging(workshop(), "tensorboard")(steps=4))
    told = events(session.folder.path)
    assert told == rounded(expected(session))
    assert [name for name in sorted(told) if name.startswith("train/")] == STEPS
    assert [step for step, _ in told["train/loss"]] == [1, 2, 3, 4]
    assert {"judge/gain", "judge/gain_low", "judge/gain_high"} <= told.keys()


@pytest.mark.slow
@needs_tensorboard
def test_steps_that_are_taken_again_stand_once_in_the_event_files(workshop: Make) -> None:
    make = logging(workshop(), "tensorboard")
    stop_after(make(steps=6), 2)
    killed = take(make(resume=True), 3)
    assert [step for step, _ in events(killed.folder.path)["train/loss"]] == [1, 2, 3, 4, 5]
    session = take(make(resume=True))
    assert session.trainer.step == 6
    assert events(session.folder.path) == rounded(expected(session))


@pytest.mark.slow
@needs_tensorboard
def test_a_log_that_begins_late_gets_what_was_before(workshop: Make) -> None:
    place = workshop()
    stop_after(place.start("run", steps=4), 2)
    session = take(logging(place, "tensorboard")(resume=True))
    assert [step for step, _ in events(session.folder.path)["train/loss"]] == [1, 2, 3, 4]


@pytest.mark.slow
@needs_tensorboard
def test_a_run_without_logs_and_another_process_of_a_team_write_none(workshop: Make) -> None:
    place = workshop()
    plain = place.finish("run", steps=1)
    session = logging(place, "tensorboard")(steps=1, overwrite=True)
    session.team = Team(rank=1)
    take(session)
    for folder in (plain.folder.path, session.folder.path):
        assert not (folder / "tensorboard").exists()
        assert not (folder / "logs.json").exists()


@dataclass
class Calls:
    """What stand-ins for W&B and MLflow were told; rows stay from one opening to the next, as on their servers."""

    opened: list[dict[str, Any]] = field(default_factory=list)
    rows: list[tuple[str, int, str, float]] = field(default_factory=list)
    params: dict[str, str] = field(default_factory=dict)
    ended: int = 0

    def told(self) -> Told:
        """Numbers by name with their steps, of all rows."""
        found: Told = {}
        for _, step, name, value in self.rows:
            found.setdefault(name, []).append((step, value))
        return found

    def end(self, *_: object) -> None:
        self.ended += 1


def stand_in(monkeypatch: pytest.MonkeyPatch, name: str, **content: object) -> None:
    module = ModuleType(name)
    module.__spec__ = ModuleSpec(name, None)
    vars(module).update(content)
    monkeypatch.setitem(sys.modules, name, module)


def wandb_stand_in(monkeypatch: pytest.MonkeyPatch, calls: Calls) -> None:
    def init(**options: Any) -> Any:
        calls.opened.append(options)
        last = max((step for identity, step, _, _ in calls.rows if identity == options["id"]), default=-1)

        def log(scalars: dict[str, float], step: int) -> None:
            calls.rows += [(options["id"], step, name, value) for name, value in scalars.items()]

        return SimpleNamespace(step=last + 1, log=log, finish=calls.end)

    stand_in(monkeypatch, "wandb", init=init)


def mlflow_stand_in(monkeypatch: pytest.MonkeyPatch, calls: Calls) -> None:
    class MlflowClient:
        set_terminated = staticmethod(calls.end)

        def get_experiment_by_name(self, name: str) -> None:
            return None

        def create_experiment(self, name: str) -> str:
            return f"number of {name}"

        def create_run(self, experiment: str, run_name: str) -> Any:
            calls.opened.append({"experiment": experiment, "name": run_name})
            return SimpleNamespace(info=SimpleNamespace(run_id="the-run"))

        def update_run(self, identity: str, status: str) -> None:
            calls.opened.append({"id": identity, "status": status})

        def log_param(self, identity: str, key: str, value: str) -> None:
            assert key not in calls.params
            calls.params[key] = value

        def get_metric_history(self, identity: str, name: str) -> list[Any]:
            return [SimpleNamespace(step=row[1]) for row in calls.rows if (row[0], row[2]) == (identity, name)]

        def log_batch(self, identity: str, metrics: list[Any]) -> None:
            calls.rows += [(identity, step, name, value) for name, value, _, step in metrics]

    stand_in(monkeypatch, "mlflow")
    stand_in(monkeypatch, "mlflow.tracking", MlflowClient=MlflowClient)
    stand_in(monkeypatch, "mlflow.entities", Metric=lambda *fields: fields)


STAND_INS = {"wandb": wandb_stand_in, "mlflow": mlflow_stand_in}


@pytest.mark.slow
@pytest.mark.parametrize("name", STAND_INS)
def test_a_service_gets_every_number_once_under_one_run(
    workshop: Make, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    calls = Calls()
    STAND_INS[name](monkeypatch, calls)
    make = logging(workshop(), name)
    stop_after(make(steps=6), 2)
    take(make(resume=True), 2)
    session = take(make(resume=True))
    assert calls.told() == expected(session)
    (identity,) = {row[0] for row in calls.rows}
    assert read_identities(session.folder.path) == {name: identity}
    assert calls.ended == len(calls.opened) == 3
    first = calls.opened[0]
    if name == "wandb":
        assert (first["project"], first["name"], first["resume"]) == ("smn", "run", "allow")
        assert first["dir"] == str(session.folder.path)
        assert (first["config"]["num_steps"], first["config"]["recipe"]) == (6, "paper")
        assert {opened["id"] for opened in calls.opened} == {identity}
    else:
        assert first == {"experiment": "number of smn", "name": "run"}
        assert calls.opened[1:] == [{"id": "the-run", "status": "RUNNING"}] * 2
        assert (calls.params["num_steps"], calls.params["recipe"]) == ("6", "paper")


@pytest.mark.slow
@needs_tensorboard
def test_a_log_that_fails_is_told_once_and_does_not_stop_the_run(
    workshop: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ConnectionError("the server\nis away")

    stand_in(monkeypatch, "wandb", init=lambda **_: SimpleNamespace(log=fail, finish=fail))
    heard: list[str] = []
    session = logging(workshop(), "wandb", "tensorboard")(steps=3)
    object.__setattr__(session.execution, "on_phase", heard.append)
    take(session)
    assert heard == ["the log wandb ends at step 1: the server"]
    assert len(events(session.folder.path)["train/loss"]) == 3
    stand_in(monkeypatch, "wandb", init=fail)
    with (
        pytest.raises(UsageError, match=r"`log` wandb cannot be opened: the server$"),
        opened_logs(["wandb"], session.folder.path, {}, [], step=0, tell=heard.append),
    ):
        pass


@needs_tensorboard
def test_a_run_that_goes_on_has_the_logs_that_it_had(tmp_path: Path) -> None:
    (tmp_path / "logs.json").write_text('{"tensorboard": "tensorboard", "other": "1"}')
    assert check_logs([], tmp_path) == check_logs(["tensorboard"], tmp_path) == ("tensorboard",)
    (tmp_path / "logs.json").write_text('{"tensor')
    assert check_logs([], tmp_path) == ()
    assert Execution().logs == ()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tensorboard", "--log tensorboard needs an extra: pip install 'smn-cli[tensorboard]'"),
        ("wandb", "--log wandb needs an extra: pip install 'smn-cli[wandb]'"),
        ("mlflow", "--log mlflow needs an extra: pip install 'smn-cli[mlflow]'"),
        ("neptune", "--log neptune: expected one of tensorboard, wandb, mlflow"),
    ],
)
def test_a_log_that_cannot_be_written_is_refused_before_any_work(
    run_cli: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, message: str
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    outcome = run_cli("adapt", tmp_path / "no-images", "--arch", "none", "--log", name, "--out", tmp_path / "run")
    assert outcome.code == 2
    assert outcome.err.splitlines() == [f"smn: {message}"]
    assert list(tmp_path.iterdir()) == []
