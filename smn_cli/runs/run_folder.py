"""A run on disk: settings, images, metrics and the state to resume from. Every file is complete or not there."""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from smn_cli.atomic import naming, write_atomically
from smn_cli.errors import CheckpointError, UsageError
from smn_cli.holding import Hold, clear_orphans, hold_patiently
from smn_cli.recognise import read_file, read_json
from smn_cli.runs.checked_files import check_file, read_tensors, recorded_digest, write_checked, write_tensors

SCHEMA = "smn.run/1"
CONFIG, IMAGES, BAD_IMAGES, METRICS = "config.json", "images.txt", "bad_images.txt", "metrics.jsonl"
REPORT = "report.html"
STATE = Path("checkpoint") / "state.pt"
# beside the state, as tensors
TEACHER_FILE, OBJECTIVE_FILE = "teacher.safetensors", "objective.safetensors"
LABELS_FILE, ORIGIN_FILE = "labels.safetensors", "origin.safetensors"
_TENSOR_FILES = (TEACHER_FILE, OBJECTIVE_FILE, LABELS_FILE, ORIGIN_FILE)
_SEALED = "sealed"
BEST_STATE = "keeper"
"""Key of the best state in `STATE`, as runs of version 0.1 have it."""
CASCADE_SCHEMA, CASCADE_FILE = "smn.cascade-run/1", "cascade.safetensors"
_WRITTEN = (CONFIG, IMAGES, BAD_IMAGES, METRICS, REPORT, STATE.name, *_TENSOR_FILES, CASCADE_FILE)
_REQUIRED = frozenset(
    {"judge", "arch", "weights", "base_digest", "plan", "preprocessing", "images", "threads", "versions"}
)


_KINDS: dict[str, type] = {
    **dict.fromkeys(("arch", "tag", "weights", "base_digest", "device", "launch", "judge", "val"), str),
    **dict.fromkeys(("plan", "preprocessing", "images", "versions"), dict),
    **dict.fromkeys(("teachers", "classes"), list),
}
"""Of the settings that a run or a cascade has."""


class RunFolder:
    """Paths and files of one run."""

    schema, required, maker = SCHEMA, _REQUIRED, "smn adapt"

    def __init__(self, path: Path) -> None:
        self.path = path
        self._hold: Hold | None = None

    def hold(self) -> None:
        """Keep other processes from working in this folder until `release`, or until this one ends.

        What killed processes left in it and, as they made it, beside it is removed.

        Raises:
            UsageError: another one does.
        """
        if self._hold is None:
            self._hold = hold_patiently(self.path)
            if self._hold is None:
                raise UsageError(_in_use(self.path))
            clear_orphans(self.path)
            for folder in (self.path, *(path for path in self.path.rglob("*") if path.is_dir())):
                for name in _WRITTEN:
                    clear_orphans(folder / name, least_age_s=0)

    def release(self) -> None:
        """Let other processes work in this folder."""
        if self._hold is not None:
            self._hold.release()
            self._hold = None

    @classmethod
    def check_free(cls, path: Path, *, overwrite: bool) -> None:
        """Refuse a path where something is that may not be replaced; to be asked before any work is done.

        Raises:
            UsageError: a run is there and `overwrite` is false, or something else is.
        """
        is_empty_folder = path.is_dir() and not path.is_symlink() and not any(path.iterdir())
        if not path.exists() or is_empty_folder:
            return
        if path.is_symlink() or not is_run(path, cls.schema):
            raise UsageError(f"`out` {path} exists and is not a run folder of {cls.maker}: choose another `out`")
        if not overwrite:
            raise UsageError(f"`out` {path} exists: `resume` continues it, `overwrite` replaces it")
        if (held := hold_patiently(path)) is None:
            raise UsageError(_in_use(path))
        held.release()

    @classmethod
    @contextmanager
    def create(cls, path: Path, *, overwrite: bool) -> "Iterator[RunFolder]":
        """A run folder in the making, beside `path`; it takes its place when the block ends well, else it vanishes.

        Raises:
            UsageError: see `check_free`; or the folder cannot be made.
        """
        cls.check_free(path, overwrite=overwrite)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            clear_orphans(path)
            making = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
        except OSError as error:
            raise UsageError(f"`out` {path} cannot be made: {error.strerror}") from None
        folder = cls(making)
        try:
            with naming(path, making):
                (making / STATE.parent).mkdir()
                making.chmod(0o755)
                folder.hold()
                yield folder
            cls.check_free(path, overwrite=overwrite)  # another process may have been faster
            if path.exists():
                shutil.rmtree(path)
            making.rename(path)
            folder.path = path
        except BaseException:
            shutil.rmtree(making, ignore_errors=True)
            folder.release()
            raise

    @classmethod
    def open(cls, path: Path) -> "RunFolder":
        """An existing run.

        Raises:
            CheckpointError: there is no run at that path.
        """
        if not (path / CONFIG).is_file():
            raise CheckpointError(f"{path} is not a run folder: expected {CONFIG} in it, as {cls.maker} writes it")
        return cls(path)

    def write_config(self, config: dict[str, Any]) -> None:
        """Write config.json."""
        text = json.dumps({"schema": self.schema, **config}, indent=2, sort_keys=True)
        write_atomically(self.path / CONFIG, (text + "\n").encode())

    def read_config(self) -> dict[str, Any]:
        """Read config.json.

        Raises:
            CheckpointError: it is damaged or of another version.
        """
        path = self.path / CONFIG
        try:
            config = read_json(path)
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{path} cannot be read: {error}") from None
        if not isinstance(config, dict) or config.get("schema") != self.schema:
            raise CheckpointError(self._other_schema())
        if lacking := sorted(self.required - config.keys()):
            raise CheckpointError(f"{path} lacks {lacking[0]!r}: it was edited, or is of another version of smn")
        for name, kind in _KINDS.items():
            if name in config and not isinstance(config[name], kind):
                found = f"{config[name]!r:.80}"
                raise CheckpointError(f"{path}: {name} is {found}, expected a {kind.__name__}: it was edited")
        return config

    def _other_schema(self) -> str:
        if is_run(self.path) and self.schema != SCHEMA:
            return f"{self.path} is the run of a single mask, not a cascade: expected the folder of a cascade"
        if is_run(self.path, CASCADE_SCHEMA) and self.schema != CASCADE_SCHEMA:
            file = self.path / CASCADE_FILE
            return f"{self.path} is the folder of a cascade, not of a run: use its {file}, which needs no packing"
        return f"{self.path / CONFIG} has another schema than {self.schema}: it is of another version of smn"

    def write_images(self, good: list[Path], bad_lines: list[str]) -> None:
        """Write the images of the run in their order, and the bad ones with reasons."""
        write_atomically(self.path / IMAGES, _lines([str(path.absolute()) for path in good]))
        if bad_lines:
            write_atomically(self.path / BAD_IMAGES, _lines(bad_lines))

    def read_images(self) -> list[Path]:
        """The images of the run, in its order.

        Raises:
            CheckpointError: the list is missing.
        """
        try:
            text = read_file(self.path / IMAGES).decode("utf-8", "surrogateescape")
        except OSError as error:
            raise CheckpointError(f"{self.path / IMAGES} cannot be read: {error.strerror or error}") from None
        images = [Path(line) for line in text.split("\n") if line]
        if not images:
            raise CheckpointError(f"{self.path / IMAGES} lists no image: it was edited; start the run again")
        return images

    def append_metrics(self, record: dict[str, Any]) -> None:
        """Add one line to metrics.jsonl."""
        path = self.path / METRICS
        with naming(path), path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def keep_metrics_until(self, step: int) -> None:
        """Drop the lines of steps that a killed run took after its last checkpoint."""
        kept = [json.dumps(record) for record in self.read_metrics() if record["step"] <= step]
        write_atomically(self.path / METRICS, _lines(kept))

    def read_metrics(self) -> list[dict[str, Any]]:
        """What was logged, whatever became of the file: lines that are no record of a step are passed over."""
        path = self.path / METRICS
        lines = path.read_bytes().splitlines() if path.is_file() else []
        return [record for record in map(_record_of, lines) if record is not None]

    def save_state(self, state: dict[str, Any]) -> None:
        """Write the training state, and with it what the folder's other files are now."""
        sealed = {**state, _SEALED: self._digests()}

        def write(path: Path) -> None:
            with path.open("wb") as file:  # a path would put its name into the bytes
                torch.save(sealed, file)

        write_checked(self.path / STATE, write)

    def load_state(self) -> dict[str, Any]:
        """Read the training state.

        Raises:
            CheckpointError: it is missing or damaged, or another file of the run is no longer what it was.
        """
        check_file(self.path / STATE)
        try:
            state = torch.load(self.path / STATE, map_location="cpu", weights_only=True)
        except Exception as error:  # the unpickler raises anything on hostile bytes
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise CheckpointError(f"{self.path / STATE} is damaged: {reason}") from None
        if not isinstance(state, dict) or not isinstance(state.get("trainer"), dict):
            raise CheckpointError(f"{self.path / STATE} is damaged: it holds no training state")
        self._check_sealed(state.pop(_SEALED, None))
        return state

    def _digests(self) -> dict[str, str]:
        """SHA-256 of every file that the run's result depends on, beside the state; large ones end in their own."""
        texts = {name: self.path / name for name in (CONFIG, IMAGES)}
        found = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in texts.items() if path.is_file()}
        tensors = {name: self.path / STATE.parent / name for name in _TENSOR_FILES}
        return found | {
            f"{STATE.parent}/{name}": recorded_digest(path) for name, path in tensors.items() if path.is_file()
        }

    def _check_sealed(self, sealed: Any) -> None:
        if not isinstance(sealed, dict):  # of an older smn, which knew no seal
            return
        found = self._digests()
        if changed := [name for name in sealed if found.get(name) != sealed[name]]:
            what = "is not what it was" if changed[0] in found else "is missing"
            raise CheckpointError(
                f"{self.path / changed[0]} {what} when the run saved its state: put it back, or start the run again"
            )

    def save_tensors(self, name: str, tensors: dict[str, Tensor]) -> None:
        """Write named tensors beside the training state."""
        write_tensors(self.path / STATE.parent / name, tensors)

    def has_tensors(self, name: str) -> bool:
        """Whether `save_tensors` was ever called with that name."""
        return (self.path / STATE.parent / name).is_file()

    def load_tensors(self, name: str) -> dict[str, Tensor]:
        """Read what `save_tensors` wrote.

        Raises:
            CheckpointError: it is missing or damaged.
        """
        return read_tensors(self.path / STATE.parent / name)


def _in_use(path: Path) -> str:
    return f"`out` {path} is being worked on by another smn: wait for it, or choose another `out`"


def is_run(path: Path, schema: str = SCHEMA) -> bool:
    """Whether a folder is a run of smn of any version, by what its config.json says."""
    try:
        config = read_json(path / CONFIG)
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and str(config.get("schema", "")).startswith(schema.partition("/")[0] + "/")


def _lines(lines: list[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape")


def _record_of(line: bytes) -> dict[str, Any] | None:
    """One line of metrics.jsonl; None if a kill cut it short or it was damaged."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    is_record = isinstance(record, dict) and type(record.get("step")) is int
    return record if is_record else None
