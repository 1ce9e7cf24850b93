"""Everything that determines a run, besides the backbone and the images."""

from dataclasses import MISSING, asdict, dataclass, field, fields
from math import isfinite
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from smn_cli.config.teachers import LAST
from smn_cli.recipes import TRAIN_MODES, Keep, MaskKind, NormStats, Precision, Train, TrainMode, ViewPlan

_NUM_READ = 5000
"""As `smn_cli.evaluation.readouts.MAX_FITTED`, which a plan cannot import: it needs no torch."""


@dataclass(frozen=True)
class AdaptPlan:
    """Everything that determines a run, besides the backbone and the images."""

    recipe: str
    train: Train
    objective: str
    keep: Keep
    views: ViewPlan
    teacher_size: int
    batch_size: int
    num_steps: int
    steps_per_epoch: int
    num_holdout: int
    eval_every: int
    warmup_steps: int
    head_steps: int
    num_prototypes: int
    prototype_freeze_steps: int
    queue_length: int
    queue_start_step: int
    embedding_dim: int
    temperature: float
    epsilon: float
    sinkhorn_iterations: int
    score_init: str
    score_start: float
    threshold: float
    score_optimizer: str
    score_momentum: float
    lr_scores: float
    lr_head: float
    head_momentum: float
    head_constant_decay: float
    lr_period: str
    include_depthwise: bool
    include_stem: bool
    mask_also: tuple[str, ...]
    norm_stats: NormStats
    seed: int
    precision: Precision
    compile: bool
    grad_checkpoint: bool
    num_classes: int = 0
    label_fraction: float | None = None
    mask_kind: MaskKind = "threshold"
    density: float | None = None
    density_start: float | None = None
    mask_only: tuple[str, ...] = ()
    teachers: tuple[str, ...] = ()
    witness: str = ""
    cached_views: int = 0
    cached_bytes: int = 0
    training_images: int = 0
    reasons: dict[str, str] = field(default_factory=dict, compare=False)

    @property
    def mode(self) -> TrainMode:
        """What is trained."""
        return TRAIN_MODES[self.train]

    @property
    def max_images(self) -> int:
        """Images that a run can use at most: those of its steps and the held-out ones."""
        return self.max_training + self.num_holdout

    @property
    def max_training(self) -> int:
        """Images that train at most: `training_images`, else all that steps can see; without steps, for a readout."""
        return self.training_images or (self.num_steps * self.batch_size if self.num_steps else _NUM_READ)

    @property
    def teaches_itself(self) -> bool:
        """Whether the base's own last layer is among the teachers, at the working size: nobody is liker to it then."""
        return LAST in self.teachers and self.teacher_size <= self.views.global_size

    def density_at(self, step: int) -> float | None:
        """The fraction of scores to keep after a number of steps; None where a threshold decides.

        It falls linearly from `--density-start` to `--density` at the last step; while a head has the first steps to
        itself, it stays.
        """
        if self.mask_kind != "topk" or self.density is None:
            return None
        start = self.density if self.density_start is None else self.density_start
        length = self.num_steps - self.head_steps
        done = min(1.0, max(0, step - self.head_steps) / max(1, length))
        return start + (self.density - start) * done

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary for `config.json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "AdaptPlan":
        """Inverse of `to_json`; what runs of older versions do not say has its default.

        Raises:
            KeyError, TypeError: fields are missing or surplus, or hold what they cannot.
        """
        views: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values["views"].items()}
        plain = {**values, "views": ViewPlan(**views), "mask_also": tuple(values["mask_also"])}
        plain |= {name: tuple(values.get(name, ())) for name in ("mask_only", "teachers")}
        missing = {f.name for f in fields(cls) if f.default is MISSING} - plain.keys()
        if missing:
            raise KeyError(f"missing settings {sorted(missing)}")
        plan = cls(**plain)
        _check_types(plan)
        _check_types(plan.views)
        return plan


def _check_types(plan: "AdaptPlan | ViewPlan") -> None:
    """Refuse a field with a value that its declaration does not allow."""
    for name, kind in get_type_hints(type(plan)).items():
        if not _is_a(getattr(plan, name), kind):
            raise TypeError(f"{name} is {getattr(plan, name)!r:.40}")


def _is_a(value: Any, kind: Any) -> bool:
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Literal:
        return isinstance(value, str) and value in parts
    if origin in (Union, UnionType):
        return any(_is_a(value, part) for part in parts)
    if origin is tuple:
        kinds = parts[:1] * len(value) if isinstance(value, tuple) and parts[1] is Ellipsis else parts
        return isinstance(value, tuple) and len(value) == len(kinds) and all(map(_is_a, value, kinds))
    if origin is dict:
        return isinstance(value, dict) and all(isinstance(each, str) for pair in value.items() for each in pair)
    if kind is float:
        return type(value) in (int, float) and isfinite(value)
    return type(value) is kind
