"""What a user may ask of a run."""

from dataclasses import dataclass
from typing import Literal

from smn_cli.config.cache_budget import EXPECTED, OFF, parse_budget
from smn_cli.config.mask_selection import MIN_SHARE, parse_selection
from smn_cli.config.option import check_options, documents_options, option
from smn_cli.config.teachers import parse_teacher
from smn_cli.errors import ClashError, UsageError
from smn_cli.recipes import (
    RECIPES,
    TRAIN_MODES,
    WITH_LABELS,
    Keep,
    MaskKind,
    NormStats,
    Precision,
    ScoreInit,
    Train,
)


@documents_options
@dataclass(frozen=True)
class AdaptOptions:
    """What `smn adapt` was asked for; None leaves the choice to the recipe and the data.

    `score_start`, by default the recipe's, and `threshold`, at which and below which a score cuts its weight, are for
    Python alone.

    Raises:
        UsageError: an option has a value that cannot be used, alone or with the others.
    """

    recipe: str = option("default", "default; swav (no teacher); paper (its exact settings).", "Method", words=RECIPES)
    train: Train = option("mask", "mask; baselines: norm (statistics alone), full, head (none).", "Method")
    keep: Keep | None = option(None, "best (the base, if nothing beat it) or last.", "Method")
    steps: int | None = option(
        None,
        "Length of the run; by default set by the images. 0 trains nothing: the base, for `smn pack --readout`.",
        "Method",
        minimum=0,
    )
    epochs: int | None = option(None, "The same, in passes over the images.", "Method", minimum=1)
    batch_size: int | None = option(None, "Images a step; 64, or 32 for neighbourhoods.", "Method", minimum=2)
    size: int | None = option(
        None, "Side of the images, in pixels; by default the network's own.", "Method", minimum=16
    )
    teacher: tuple[str, ...] = option(
        (),
        "Who teaches: stages (the network's own), last, or a timm model, NAME[@SIZE][=FILE]. May repeat.",
        "Method",
        metavar="NAME",
    )
    witness: str | None = option(
        None,
        "Another timm model, NAME[@SIZE][=FILE], that has to agree to what is kept.",
        "Method",
        metavar="NAME",
    )
    teacher_size: int | None = option(None, "Side of the teacher's views, in pixels.", "Method", minimum=16)
    local_views: int | None = option(None, "Small views an image.", "Method", minimum=0)
    prototypes: int | None = option(None, "By default from the images.", "Method", minimum=2)
    queue: int | None = option(None, "Embeddings kept for the codes.", "Method", minimum=0)
    lr_scores: float | None = option(None, "Learning rate of the scores.", "Method", minimum=0)
    lr_head: float | None = option(None, "Learning rate of the head.", "Method", minimum=0)
    norm_stats: NormStats | None = option(None, "frozen; adapt re-estimates and carries them.", "Method")
    labels: Literal["folders"] | None = option(None, "Class folders are labels; a classifier is learned.", "Data")
    label_fraction: float | None = option(
        None, "Share of the labels used, even over classes.", "Data", above=0, maximum=1
    )
    max_bad: float = option(
        0.01, "Share of bad images put up with.", "Data", minimum=0, maximum=1, told="a fraction from 0 to 1"
    )
    mask_kind: MaskKind = option("threshold", "threshold; topk keeps a fraction of every tensor.", "Mask")
    density: float | None = option(
        None,
        "The fraction that topk keeps.",
        "Mask",
        minimum=MIN_SHARE,
        below=1,
        told="a fraction above 0 and below 1",
    )
    density_start: float | None = option(
        None,
        "It falls from here to --density.",
        "Mask",
        maximum=1,
        told="above --density and at most 1",
    )
    score_init: ScoreInit | None = option(None, "Where scores start; kaiming for topk alone.", "Mask")
    mask_only: tuple[str, ...] = option(
        (),
        "Weights that may be cut: blocks:N, late:P, name:PATTERN, all-but:PATTERN, random:P, largest:P, smallest:P. "
        "May repeat.",
        "Mask",
        metavar="SPEC",
    )
    include_stem: bool | None = option(None, "Mask the first layer.", "Mask")
    include_depthwise: bool | None = option(None, "Mask depthwise convolutions.", "Mask")
    precision: Precision | None = option(None, "By default what trains fastest here.", "Run")
    compile: bool = option(False, "Use torch.compile.", "Run")
    cache_trunk: str = option(
        OFF,
        "Compute frozen first blocks once, for a few views of every image.",
        "Run",
        told=EXPECTED,
        metavar="auto|off|BYTES",
    )
    grad_checkpoint: bool = option(False, "Less memory, a third more time.", "Run")
    seed: int = option(
        0,
        "Equal seeds and precisions, equal runs.",
        "Run",
        minimum=0,
        below=2**63,
        told="0 or more, below 2^63",
    )
    score_start: float | None = None
    threshold: float = 0.0

    def __post_init__(self) -> None:
        check_options(self)
        parse_budget(self.cache_trunk)
        for text in self.teacher:
            parse_teacher(text)
        if self.witness is not None and parse_teacher(self.witness).kind != "model":
            raise UsageError(
                f"`witness` {self.witness}: the backbone cannot be its own witness; name another timm model"
            )
        _check_labels(self)
        if self.steps is not None and self.epochs is not None:
            raise ClashError(
                "`steps` and `epochs` both set the length of the run: give one of them", "steps", ["epochs"]
            )
        _check_mask(self)


def _check_mask(options: AdaptOptions) -> None:
    """What is asked of the mask has to fit together, and to what is trained."""
    selection = parse_selection(options.mask_only)
    mode = TRAIN_MODES[options.train]
    if not (mode.has_mask and mode.moves):
        idle = {"density", "density_start", "score_init"} | (
            set() if TRAIN_MODES[options.train].moves else {"mask_only"}
        )
        given = sorted(name for name in idle if getattr(options, name)) + ["mask_kind"] * (options.mask_kind == "topk")
        if selection.draw is not None and not given:
            words = f"`train` full trains whole tensors: `mask_only` {selection.draw} needs `train` mask"
            raise ClashError(words, "mask_only", ["train"])
        if given:
            raise ClashError(f"`{given[0]}` has no effect with `train` {options.train}", given[0], ["train"])
    if options.mask_kind == "threshold":
        for name in ("density", "density_start"):
            if getattr(options, name) is not None:
                raise ClashError(f"`{name}` has no effect on a threshold: add `mask_kind` topk", name, ["mask_kind"])
        if options.score_init == "kaiming":
            words = "`score_init` kaiming starts half of the scores below 0: add `mask_kind` topk"
            raise ClashError(words, "score_init", ["mask_kind"])
        return
    _check_density(options)


def _check_density(options: AdaptOptions) -> None:
    if options.density is None:
        raise UsageError("`mask_kind` topk needs `density`, the fraction of every tensor to keep, such as 0.9")
    start = options.density_start
    if start is not None and start <= options.density:
        words = f"`density_start` is {start}: expected above `density` and at most 1"
        raise ClashError(words, "density_start", ["density"])
    if options.score_init == "constant":
        raise ClashError(
            "`score_init` constant makes all scores equal, so that topk would cut by position: "
            "give magnitude or kaiming",
            "score_init",
            ["mask_kind"],
        )


def _check_labels(options: AdaptOptions) -> None:
    if options.labels is not None and options.recipe not in WITH_LABELS:
        words = f"`labels` with `recipe` {options.recipe}: expected one of {', '.join(WITH_LABELS)}"
        raise ClashError(words, "labels", ["recipe"])
    if options.label_fraction is not None and options.labels is None:
        raise ClashError("`label_fraction` has no effect without `labels` folders", "label_fraction", ["labels"])
