"""What a user may ask of a run."""

from dataclasses import dataclass

from smn_cli.config.mask_selection import MIN_SHARE, parse_selection
from smn_cli.errors import UsageError
from smn_cli.recipes import (
    LABEL_CHOICES,
    RECIPES,
    TRAIN_CHOICES,
    TRAIN_MODES,
    WITH_LABELS,
    Keep,
    MaskKind,
    NormStats,
    Precision,
    ScoreInit,
    Train,
)

_MINIMUM = {"steps": 1, "epochs": 1, "size": 16, "teacher_size": 16, "prototypes": 2, "queue": 0}


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
    labels: str | None = None
    label_fraction: float | None = None
    mask_kind: MaskKind = "threshold"
    density: float | None = None
    density_start: float | None = None
    score_init: ScoreInit | None = None
    mask_only: tuple[str, ...] = ()
    include_stem: bool | None = None
    include_depthwise: bool | None = None

    def __post_init__(self) -> None:
        _require(self.recipe in RECIPES, "recipe", self.recipe, f"one of {', '.join(RECIPES)}")
        _require(self.norm_stats in (None, "frozen", "adapt"), "norm-stats", self.norm_stats, "frozen or adapt")
        _require(self.train in TRAIN_CHOICES, "train", self.train, f"one of {', '.join(TRAIN_CHOICES)}")
        _require(self.precision in (None, "fp32", "bf16"), "precision", self.precision, "fp32 or bf16")
        _require(self.keep in (None, "best", "last"), "keep", self.keep, "best or last")
        _require(self.batch_size >= 2, "batch-size", self.batch_size, "2 or more")
        _require(0 <= self.max_bad <= 1, "max-bad", self.max_bad, "a fraction between 0 and 1")
        _require(0 <= self.seed < 2**63, "seed", self.seed, "0 or more")
        for name, least in _MINIMUM.items():
            value = getattr(self, name)
            _require(value is None or value >= least, name.replace("_", "-"), value, f"{least} or more")
        _require(self.local_views is None or self.local_views >= 0, "local-views", self.local_views, "0 or more")
        for name in ("lr_scores", "lr_head"):
            value = getattr(self, name)
            _require(value is None or 0 <= value < float("inf"), name.replace("_", "-"), value, "0 or more, finite")
        _check_labels(self)
        if self.steps is not None and self.epochs is not None:
            raise UsageError("--steps and --epochs both set the length of the run: give one of them")
        _check_mask(self)


def _check_mask(options: AdaptOptions) -> None:
    """What is asked of the mask has to fit together, and to what is trained."""
    _require(options.mask_kind in ("threshold", "topk"), "mask-kind", options.mask_kind, "threshold or topk")
    starts = ("constant", "magnitude", "kaiming")
    _require(options.score_init in (None, *starts), "score-init", options.score_init, f"one of {', '.join(starts)}")
    selection = parse_selection(options.mask_only)
    mode = TRAIN_MODES[options.train]
    if not (mode.has_mask and mode.moves):
        idle = {"density", "density_start", "score_init"} | (
            set() if TRAIN_MODES[options.train].moves else {"mask_only"}
        )
        given = sorted(name for name in idle if getattr(options, name)) + ["mask_kind"] * (options.mask_kind == "topk")
        if selection.draw is not None and not given:
            raise UsageError(f"--train full trains whole tensors: --mask-only {selection.draw} needs --train mask")
        if given:
            raise UsageError(f"--{given[0].replace('_', '-')} has no effect with --train {options.train}")
    if options.mask_kind == "threshold":
        for name in ("density", "density_start"):
            if getattr(options, name) is not None:
                raise UsageError(f"--{name.replace('_', '-')} has no effect on a threshold: add --mask-kind topk")
        if options.score_init == "kaiming":
            raise UsageError("--score-init kaiming starts half of the scores below 0: add --mask-kind topk")
        return
    _check_density(options)


def _check_density(options: AdaptOptions) -> None:
    if options.density is None:
        raise UsageError("--mask-kind topk needs --density, the fraction of every tensor to keep, such as 0.9")
    _require(MIN_SHARE <= options.density < 1, "density", options.density, "a fraction above 0 and below 1")
    start = options.density_start
    _require(start is None or options.density < start <= 1, "density-start", start, "above --density and at most 1")
    if options.score_init == "constant":
        raise UsageError(
            "--score-init constant makes all scores equal, so that topk would cut by position: "
            "give magnitude or kaiming"
        )


def _check_labels(options: AdaptOptions) -> None:
    _require(options.labels in (None, *LABEL_CHOICES), "labels", options.labels, "folders")
    if options.labels is not None and options.recipe not in WITH_LABELS:
        raise UsageError(f"--labels with --recipe {options.recipe}: expected one of {', '.join(WITH_LABELS)}")
    if options.label_fraction is None:
        return
    if options.labels is None:
        raise UsageError("--label-fraction has no effect without --labels folders")
    _require(0 < options.label_fraction <= 1, "label-fraction", options.label_fraction, "above 0, at most 1")


def _require(holds: bool, option: str, value: object, expected: str) -> None:
    if not holds:
        raise UsageError(f"--{option} is {value}: expected {expected}")
