"""What a run tells TensorBoard, W&B or MLflow while it lasts: the numbers of metrics.jsonl, step by step.

A log goes on where it was: what a killed run had logged after its last checkpoint is not there twice.
"""

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

from smn_cli.atomic import write_atomically
from smn_cli.config.option import any_of
from smn_cli.errors import UsageError
from smn_cli.recognise import read_json

EVENTS_FOLDER = "tensorboard"
"""In a run folder: TensorBoard's event files."""
LOGS = "logs.json"
"""In a run folder: the name of each log, and by which number its service knows the run."""
PROJECT = "smn"
"""Of W&B, and experiment of MLflow, if their own variables (WANDB_PROJECT, MLFLOW_EXPERIMENT_NAME) name none."""
_NO_SCALARS = ("step", "num_steps", "evaluation")


class RunLog(Protocol):
    """Where scalars go; `identity` is by what the service knows the run."""

    identity: str

    def write(self, step: int, scalars: dict[str, float]) -> None:
        """Take numbers by name, of a step."""
        ...

    def close(self) -> None:
        """Bring what is left where it belongs."""
        ...


def scalars_of(record: dict[str, Any]) -> dict[str, float]:
    """Numbers by name in a line of metrics.jsonl: `train/...` of a step, `judge/...` of an evaluation.

    The gain is `judge/gain`, the ends of its interval `judge/gain_low` and `judge/gain_high`.
    """
    judged = dict(record.get("evaluation", {}))
    gain = judged.pop("gain", {})
    found = {f"train/{name}": value for name, value in record.items() if name not in _NO_SCALARS}
    found |= {f"judge/{name}": value for name, value in judged.items()}
    found |= {"judge/gain" if name == "value" else f"judge/gain_{name}": value for name, value in gain.items()}
    return {name: float(value) for name, value in found.items() if isinstance(value, (int, float))}


class TensorBoardLog:
    """Event files in the run folder."""

    def __init__(self, folder: Path, identity: str, config: dict[str, Any], step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # tells readers to forget the steps that are taken again
        self._writer: Any = SummaryWriter(str(folder / EVENTS_FOLDER), purge_step=step + 1 if identity else None)
        self.identity = EVENTS_FOLDER

    def write(self, step: int, scalars: dict[str, float]) -> None:
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class WandbLog:
    """A run of Weights & Biases; their own variables say where to (WANDB_PROJECT, WANDB_MODE, ...)."""

    def __init__(self, folder: Path, identity: str, config: dict[str, Any], step: int) -> None:
        import wandb

        self.identity = identity or uuid4().hex[:16]
        self._run: Any = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=os.environ.get("WANDB_NAME", folder.absolute().name),
            dir=str(folder),
            id=self.identity,
            resume="allow",
            config=config,
        )
        self._first = int(self._run.step) if identity else 0  # a row that is there cannot be written again

    def write(self, step: int, scalars: dict[str, float]) -> None:
        if step >= self._first:
            self._run.log(scalars, step=step)

    def close(self) -> None:
        self._run.finish()


class MlflowLog:
    """A run of MLflow; its own variables say where to (MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME, ...)."""

    def __init__(self, folder: Path, identity: str, config: dict[str, Any], step: int) -> None:
        from mlflow.tracking import MlflowClient

        self._client: Any = MlflowClient()
        self.identity = identity
        self._last: dict[str, int] = {}
        if identity:
            self._client.update_run(identity, status="RUNNING")
            return
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        experiment = self._client.get_experiment_by_name(name)
        number = self._client.create_experiment(name) if experiment is None else experiment.experiment_id
        self.identity = self._client.create_run(number, run_name=folder.absolute().name).info.run_id
        for key, value in config.items():
            self._client.log_param(self.identity, key, str(value)[:500])  # longer ones some servers refuse

    def write(self, step: int, scalars: dict[str, float]) -> None:
        from mlflow.entities import Metric

        now_ms = int(time.time() * 1000)
        new = [Metric(name, value, now_ms, step) for name, value in scalars.items() if step > self._last_of(name)]
        if new:
            self._client.log_batch(self.identity, metrics=new)

    def _last_of(self, name: str) -> int:
        """The last step that the run had of a number when it was opened: what is taken again is there already."""
        if name not in self._last:
            history = self._client.get_metric_history(self.identity, name)
            self._last[name] = max((entry.step for entry in history), default=0)
        return self._last[name]

    def close(self) -> None:
        self._client.set_terminated(self.identity)


KINDS: dict[str, Callable[[Path, str, dict[str, Any], int], RunLog]] = {
    "tensorboard": TensorBoardLog,
    "wandb": WandbLog,
    "mlflow": MlflowLog,
}
"""By name, which is that of their module and of their extra: made of run folder, identity, settings and last step."""


def check_logs(names: Sequence[str], resumed: Path | None = None) -> tuple[str, ...]:
    """The logs to write, each once: those asked for, and those that the run that goes on has.

    Args:
        names: of `KINDS`.
        resumed: run folder that goes on.

    Raises:
        UsageError: there is no such log, or its package is not installed.
    """
    kept = {} if resumed is None else read_identities(resumed)
    wanted = tuple(dict.fromkeys([*kept, *names]))
    for name in wanted:
        if name not in KINDS:
            raise UsageError(f"`log` {name}: expected {any_of(tuple(KINDS))}")
        if find_spec(name) is None:
            raise UsageError(f"`log` {name} needs an extra: pip install 'smn-cli[{name}]'")
    return wanted


def read_identities(folder: Path) -> dict[str, str]:
    """By which name each log of a run is known; empty if there are none."""
    try:
        found = read_json(folder / LOGS)
    except (OSError, ValueError):
        return {}
    return {name: str(identity) for name, identity in found.items() if name in KINDS} if isinstance(found, dict) else {}


class RunLogs:
    """All logs of a run; one that fails is told and left, since a run is worth more than its log."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._logs: dict[str, RunLog] = {}
        self._tell = tell

    def add(self, name: str, log: RunLog, records: Sequence[dict[str, Any]] = ()) -> None:
        """Take a log in, and give it lines of metrics.jsonl that it has not seen."""
        self._logs[name] = log
        for record in records:
            self._write(name, record)

    def write(self, record: dict[str, Any]) -> None:
        """Take a line of metrics.jsonl."""
        for name in list(self._logs):
            self._write(name, record)

    def close(self) -> None:
        """Close all."""
        for log in self._logs.values():
            with suppress(Exception):
                log.close()

    def _write(self, name: str, record: dict[str, Any]) -> None:
        if name not in self._logs:
            return
        try:
            self._logs[name].write(record["step"], scalars_of(record))
        except Exception as error:
            del self._logs[name]
            self._tell(f"the log {name} ends at step {record['step']}: {_line(error)}")


@contextmanager
def opened_logs(
    names: Sequence[str],
    folder: Path,
    plan: dict[str, Any],
    records: Sequence[dict[str, Any]],
    *,
    step: int,
    tell: Callable[[str], None],
) -> Iterator[RunLogs]:
    """Logs of a run while the block lasts; one that is new gets what the run has logged before.

    Args:
        names: of `KINDS`, checked.
        folder: of the run.
        plan: its settings.
        records: lines of metrics.jsonl so far.
        step: the last one taken.
        tell: called with a line on a log that fails.

    Raises:
        UsageError: a log cannot be opened.
    """
    known, logs = read_identities(folder), RunLogs(tell)
    settings = {name: value for name, value in plan.items() if name != "reasons"}
    try:
        for name in names:
            try:
                log = KINDS[name](folder, known.get(name, ""), settings, step)
            except Exception as error:  # of their libraries, or of the network
                raise UsageError(f"`log` {name} cannot be opened: {_line(error)}") from None
            logs.add(name, log, () if name in known else records)
            known[name] = log.identity
            write_atomically(folder / LOGS, (json.dumps(known, sort_keys=True) + "\n").encode())
        yield logs
    finally:
        logs.close()


def _line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
