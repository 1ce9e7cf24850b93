"""Everything that determines a run, besides the backbone and the images."""

from dataclasses import MISSING, asdict, dataclass, field, fields
from typing import Any

from smn_cli.recipes import TRAIN_MODES, Keep, MaskKind, NormStats, Precision, Train, TrainMode, ViewPlan


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
    reasons: dict[str, str] = field(default_factory=dict, compare=False)

    @property
    def mode(self) -> TrainMode:
        """What is trained."""
        return TRAIN_MODES[self.train]

    @property
    def max_images(self) -> int:
        """Images that a run can use at most: those of its steps and the held-out ones."""
        return max(self.num_steps, 1) * self.batch_size + self.num_holdout

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
            KeyError, TypeError: fields are missing or surplus.
        """
        views: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values["views"].items()}
        plain = {**values, "views": ViewPlan(**views), "mask_also": tuple(values["mask_also"])}
        plain |= {name: tuple(values.get(name, ())) for name in ("mask_only", "teachers")}
        missing = {f.name for f in fields(cls) if f.default is MISSING} - plain.keys()
        if missing:
            raise KeyError(f"missing settings {sorted(missing)}")
        return cls(**plain)
