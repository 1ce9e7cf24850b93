"""Settings of a run: what a user may ask for, and the plan that follows from it and from the number of images.

`AdaptOptions` holds the wishes (None: derive it); `make_plan` resolves them, with the recipe's defaults, into an
`AdaptPlan` with the reason of every derived value. Nothing here knows torch, so that `--help` is quick.
"""

from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from smn_cli.errors import DataError, UsageError
from smn_cli.recipes import RECIPES, TRAIN_CHOICES, Keep, NormStats, Precision, Recipe, Train, ViewPlan

_LEAST = {"steps": 1, "epochs": 1, "size": 16, "teacher_size": 16, "prototypes": 2, "queue": 0}


@dataclass(frozen=True)
class AdaptOptions:
    """What `smn adapt` was asked for; None leaves the choice to the recipe and the data."""

    recipe: str = "default"
    train: Train = "mask"
    steps: int | None = None
    epochs: int | None = None
    batch_size: int = 64
    size: int | None = None
    teacher_size: int | None = None
    prototypes: int | None = None
    queue: int | None = None
    local_views: int | None = None
    lr_scores: float | None = None
    lr_head: float | None = None
    norm_stats: NormStats | None = None
    score_start: float | None = None
    threshold: float = 0.0
    keep: Keep | None = None
    seed: int = 0
    max_bad: float = 0.01
    precision: Precision | None = None
    compile: bool = False
    grad_checkpoint: bool = False

    def __post_init__(self) -> None:
        _require(self.recipe in RECIPES, "recipe", self.recipe, f"one of {', '.join(RECIPES)}")
        _require(self.norm_stats in (None, "frozen", "adapt"), "norm-stats", self.norm_stats, "frozen or adapt")
        _require(self.train in TRAIN_CHOICES, "train", self.train, f"one of {', '.join(TRAIN_CHOICES)}")
        _require(self.precision in (None, "fp32", "bf16"), "precision", self.precision, "fp32 or bf16")
        _require(self.keep in (None, "best", "last"), "keep", self.keep, "best or last")
        _require(self.batch_size >= 2, "batch-size", self.batch_size, "2 or more")
        _require(0 <= self.max_bad <= 1, "max-bad", self.max_bad, "a fraction between 0 and 1")
        _require(0 <= self.seed < 2**63, "seed", self.seed, "0 or more")
        for name, least in _LEAST.items():
            value = getattr(self, name)
            _require(value is None or value >= least, name.replace("_", "-"), value, f"{least} or more")
        _require(self.local_views is None or self.local_views >= 0, "local-views", self.local_views, "0 or more")
        for name in ("lr_scores", "lr_head"):
            value = getattr(self, name)
            _require(value is None or 0 <= value < float("inf"), name.replace("_", "-"), value, "0 or more, finite")
        if RECIPES[self.recipe].objective == "taught":
            for name in ("queue", "lr_head"):
                if getattr(self, name) is not None:
                    raise UsageError(f"--{name.replace('_', '-')} has no effect with --recipe {self.recipe}")
            if self.train == "head":
                raise UsageError(f"--train head: --recipe {self.recipe} has no head; add --recipe swav or paper")
        if self.steps is not None and self.epochs is not None:
            raise UsageError("--steps and --epochs both set the length of the run: give one of them")


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
    reasons: dict[str, str] = field(default_factory=dict, compare=False)

    @property
    def most_images(self) -> int:
        """Images that a run can use at most: those of its steps and the held-out ones."""
        return max(self.num_steps, 1) * self.batch_size + self.num_holdout

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary for `config.json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "AdaptPlan":
        """Inverse of `to_json`.

        Raises:
            KeyError, TypeError: fields are missing or surplus.
        """
        views: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values["views"].items()}
        plain = {**values, "views": ViewPlan(**views), "mask_also": tuple(values["mask_also"])}
        missing = {f.name for f in fields(cls)} - plain.keys()
        if missing:
            raise KeyError(f"missing settings {sorted(missing)}")
        return cls(**plain)


def make_plan(
    options: AdaptOptions,
    num_images: int,
    *,
    native_size: int = 224,
    on_cpu: bool = True,
    precision: Precision = "fp32",
) -> AdaptPlan:
    """Resolve options into a plan for `num_images` images.

    Args:
        options: what was asked for.
        num_images: usable images.
        native_size: side of the images that the backbone was trained on, in pixels.
        on_cpu: whether training has to be cheap.
        precision: what suits the device, if none was asked for.

    Raises:
        DataError: fewer images than one batch.
    """
    recipe = RECIPES[options.recipe]
    if num_images < options.batch_size:
        raise DataError(
            f"{num_images} usable images are fewer than one batch of {options.batch_size}: "
            "add images or lower --batch-size"
        )
    reasons: dict[str, str] = {}
    num_holdout = _num_holdout(options, recipe, num_images, reasons)
    num_training = num_images - num_holdout
    steps_per_epoch = num_training // options.batch_size
    num_steps = _num_steps(options, steps_per_epoch, reasons)
    num_seen = min(num_training, num_steps * options.batch_size)
    views = _views(options, recipe, _working_size(options, native_size, on_cpu, reasons))
    default_lr = recipe.lr_tuned if options.train == "full" else recipe.lr_scores
    return AdaptPlan(
        recipe=options.recipe,
        train=options.train,
        keep=options.keep or recipe.keep,
        views=views,
        teacher_size=_teacher_size(options, views.global_size, native_size, reasons),
        batch_size=options.batch_size,
        num_steps=num_steps,
        steps_per_epoch=steps_per_epoch,
        num_holdout=num_holdout,
        eval_every=max(1, -(-num_steps // NUM_EVALUATIONS)),
        head_steps=_head_steps(recipe, num_steps, steps_per_epoch, reasons),
        num_prototypes=_num_prototypes(options, recipe, num_seen, reasons),
        prototype_freeze_steps=5005 if options.recipe == "paper" else 0,
        queue_length=_queue(options, recipe, num_training, reasons),
        queue_start_step=num_steps // 5 // steps_per_epoch * steps_per_epoch,
        score_start=_first(options.score_start, recipe.score_start),
        threshold=options.threshold,
        score_optimizer="adam" if options.train == "full" else recipe.score_optimizer,
        lr_scores=_first(options.lr_scores, default_lr),
        lr_head=_first(options.lr_head, recipe.lr_head),
        norm_stats=_norm_stats(options, recipe),
        seed=options.seed,
        precision=options.precision or precision,
        compile=options.compile,
        grad_checkpoint=options.grad_checkpoint,
        reasons=reasons,
        **{name: getattr(recipe, name) for name in _COPIED},
    )


NUM_EVALUATIONS = 5
"""Looks at the held-out images in a run; each costs about as much as three training steps a thousand images."""

_COPIED = (
    "objective", "embedding_dim", "temperature", "epsilon", "sinkhorn_iterations", "score_init", "score_momentum",
    "head_momentum", "head_constant_decay", "warmup_steps", "lr_period", "include_depthwise", "include_stem",
    "mask_also",
)  # fmt: skip


def _num_holdout(options: AdaptOptions, recipe: Recipe, num_images: int, reasons: dict[str, str]) -> int:
    if (options.keep or recipe.keep) == "last":
        return 0
    num_holdout = min(max(num_images // 10, LEAST_HOLDOUT), 500, num_images - options.batch_size)
    if num_holdout < LEAST_HOLDOUT:
        reasons["num_holdout"] = "too few images to hold any out, so nothing can be judged"
        return 0
    reasons["num_holdout"] = "a tenth of the images, between 30 and 500: never trained on, they decide what is kept"
    return num_holdout


LEAST_HOLDOUT = 30
"""Held-out images below which no interval says anything."""


def _num_steps(options: AdaptOptions, steps_per_epoch: int, reasons: dict[str, str]) -> int:
    if options.steps is not None:
        return options.steps
    if options.epochs is not None:
        return options.epochs * steps_per_epoch
    if options.recipe == "paper":
        reasons["num_steps"] = "150 epochs, as in the paper"
        return 150 * steps_per_epoch
    reasons["num_steps"] = "five epochs, at least 200 and at most 1,500 steps"
    return min(max(5 * steps_per_epoch, 200), 1500)


def _head_steps(recipe: Recipe, num_steps: int, steps_per_epoch: int, reasons: dict[str, str]) -> int:
    if not recipe.scores_wait_for_head:
        return 0
    reasons["head_steps"] = "two epochs, at least 60, at most 200 steps: an untrained head teaches the mask noise"
    return min(max(2 * steps_per_epoch, 60), 200, num_steps // 2)


def _norm_stats(options: AdaptOptions, recipe: Recipe) -> NormStats:
    norm_stats: NormStats = "adapt" if options.train == "norm" else options.norm_stats or recipe.norm_stats
    if options.grad_checkpoint and norm_stats == "adapt":
        raise UsageError("--grad-checkpoint computes features twice, so statistics would adapt twice: leave it out")
    return norm_stats


def _num_prototypes(options: AdaptOptions, recipe: Recipe, num_images: int, reasons: dict[str, str]) -> int:
    if options.prototypes is not None:
        return min(options.prototypes, num_images)
    if options.recipe == "paper":
        reasons["num_prototypes"] = "as in the paper"
        return 500
    if recipe.objective == "taught":
        reasons["num_prototypes"] = "one for 15 images, between 10 and 1,000: codes are made over all images at once"
        return min(max(num_images // 15, 10), 1000, num_images)
    reasons["num_prototypes"] = "one for 20 images, between 10 and 100: a batch has to fill them all"
    return min(max(num_images // 20, 10), 100)


def _queue(options: AdaptOptions, recipe: Recipe, num_images: int, reasons: dict[str, str]) -> int:
    if recipe.objective == "taught":
        return 0
    wanted = options.queue
    if wanted is None:
        wanted = 512 if options.recipe == "paper" else 0
        reasons["queue_length"] = "as in the paper" if wanted else "a batch is enough for this many prototypes"
    return min(wanted, num_images) // options.batch_size * options.batch_size


def _teacher_size(options: AdaptOptions, size: int, native_size: int, reasons: dict[str, str]) -> int:
    if options.teacher_size is not None:
        return options.teacher_size
    reasons["teacher_size"] = "twice the working size, but not above the size that the backbone was trained at"
    return max(size, min(2 * size, native_size))


def _working_size(options: AdaptOptions, native_size: int, on_cpu: bool, reasons: dict[str, str]) -> int:
    if options.size is not None:
        return options.size
    if options.recipe == "paper":
        return 224
    if on_cpu and native_size > CPU_SIZE:
        reasons["views.global_size"] = (
            f"what a CPU trains at in minutes; use the adapted network at this size too, or give --size {native_size}"
        )
        return CPU_SIZE
    reasons["views.global_size"] = "the size that the backbone was trained at"
    return native_size


CPU_SIZE = 64
"""Working size on a CPU, in pixels: a twelfth of the work of 224 px."""


def _views(options: AdaptOptions, recipe: Recipe, size: int) -> ViewPlan:
    # local views keep their share of the global ones; 32 px is the stride of nearly every backbone
    local = max(32, round(recipe.views.local_size * size / recipe.views.global_size / 32) * 32)
    views = replace(recipe.views, global_size=size, local_size=local)
    if options.local_views is not None:
        views = replace(views, num_local=options.local_views)
    return views


def _first(wish: float | None, default: float) -> float:
    return default if wish is None else wish


def _require(holds: bool, option: str, value: object, expected: str) -> None:
    if not holds:
        raise UsageError(f"--{option} is {value}: expected {expected}")
