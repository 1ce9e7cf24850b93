"""The recipes: everything about a run that depends neither on the data nor on the machine.

Nothing here knows torch, so that `--help` is quick.
"""

from dataclasses import dataclass, replace
from typing import Literal

NormStats = Literal["frozen", "adapt"]
Train = Literal["mask", "norm", "full", "head"]
Keep = Literal["best", "last"]
MaskKind = Literal["threshold", "topk"]
ScoreInit = Literal["constant", "magnitude", "kaiming"]
Precision = Literal["fp32", "bf16"]


@dataclass(frozen=True)
class TrainMode:
    """What `--train` says of a run.

    Attributes:
        has_mask: whether the result is a mask over a frozen network, which an adapter can carry.
        moves: whether scores, or without a mask the weights themselves, are trained.
        changes_network: whether anything of the network changes, so that a judge can tell its states apart.
        adapts_statistics: whether normalisation statistics adapt, whatever the recipe says.
        what: becomes of the weights, in words.
    """

    has_mask: bool
    moves: bool
    changes_network: bool
    adapts_statistics: bool
    what: str


TRAIN_MODES: dict[Train, TrainMode] = {
    "mask": TrainMode(True, True, True, False, "under the mask"),
    "norm": TrainMode(True, False, True, True, "left alone"),
    "full": TrainMode(False, True, True, False, "trained themselves"),
    "head": TrainMode(True, False, False, False, "left alone"),
}


@dataclass(frozen=True)
class ViewPlan:
    """Random views an image gives in every step.

    Sizes in pixels, areas as fractions of the image. `jitter` is (brightness, contrast, saturation, hue) in
    torchvision's meaning. Views are cut from the whole image, or from its central square, as evaluation sees it.
    """

    num_global: int
    global_size: int
    global_area: tuple[float, float]
    num_local: int
    local_size: int
    local_area: tuple[float, float]
    jitter: tuple[float, float, float, float]
    jitter_probability: float
    grey_probability: float
    blur_probability: float
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    flip_probability: float = 0.5
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    from_centre_square: bool = False
    solarize_probability: float = 0.0


@dataclass(frozen=True)
class Recipe:
    """The part of a plan that does not depend on the data.

    Attributes:
        objective: a row of `smn_cli.objectives.table.OBJECTIVES`.
        native_objective: the same for images of the backbone's own size or larger, wherever a teacher is named, and
            below it where stages suit, see `smn_cli.training.lesson`; empty for recipes of one objective.
        native_area: global_area of the views there.
        native_trunk: share of the weights that the first blocks may hold to be left whole there.
        epochs, num_prototypes, working_size: None to derive them from images and machine.
        fits_classifier: whether a run with labels starts with a classifier of the base's features, not at random.
        expert_lr_share: learning rate of a cascade's experts as a part of their dispatcher's.
    """

    objective: str
    views: ViewPlan
    score_init: ScoreInit
    include_depthwise: bool
    include_stem: bool
    score_optimizer: Literal["sgd", "adam"]
    lr_scores: float
    keep: Keep
    mask_also: tuple[str, ...] = ()
    score_start: float = 1.0
    native_objective: str = ""
    native_area: tuple[float, float] = (0.25, 1.0)
    native_trunk: float = 0.1
    score_momentum: float = 0.9
    lr_tuned: float = 1e-4
    lr_head: float = 0.0
    head_constant_decay: float = 0.0
    head_momentum: float = 0.9
    warmup_steps: int = 0
    warmup_share: float = 0.0
    lr_period: Literal["step", "epoch"] = "step"
    scores_wait_for_head: bool = False
    norm_stats: NormStats = "frozen"
    embedding_dim: int = 128
    temperature: float = 0.1
    epsilon: float = 0.05
    sinkhorn_iterations: int = 3
    epochs: int | None = None
    working_size: int | None = None
    num_prototypes: int | None = None
    queue_length: int = 0
    prototype_freeze_steps: int = 0
    fits_classifier: bool = True
    expert_lr_share: float = 0.25  # an expert's bits are to differ in about one of a hundred (docs/log.md)


RECIPES: dict[str, Recipe] = {
    # codes from the frozen network on larger views; scores from the magnitude keep the network whole (docs/log.md)
    "default": Recipe(
        objective="taught",
        native_objective="neighbourhood",
        views=ViewPlan(
            1,
            64,
            (0.6, 1.0),
            0,
            32,
            (0.1, 0.4),
            (0.0, 0.0, 0.0, 0.0),
            0.0,
            0.0,
            0.0,
            aspect=(1 / 1.15, 1.15),
            from_centre_square=True,
        ),
        score_init="magnitude",
        include_depthwise=False,
        include_stem=False,
        score_optimizer="adam",
        lr_scores=0.03,
        keep="best",
        warmup_steps=10,
        sinkhorn_iterations=10,
    ),
    # SwAV between two mild views, with scores that keep the network whole; the default before the teacher
    "swav": Recipe(
        objective="swapped",
        views=ViewPlan(2, 64, (0.4, 1.0), 0, 32, (0.1, 0.4), (0.32, 0.32, 0.32, 0.0), 0.8, 0.08, 0.0),
        score_init="magnitude",
        include_depthwise=False,
        include_stem=False,
        score_optimizer="adam",
        lr_scores=0.01,
        keep="best",
        lr_head=1.0,
        scores_wait_for_head=True,
    ),
    # arXiv 2409.07577, section 4.1 and the settings of its self-supervised ResNet-50 runs; its code also masks the
    # affine parameters of the shortcut normalisations, 7,680 values that its count of 23,462,592 includes
    "paper": Recipe(
        objective="swapped",
        views=ViewPlan(2, 224, (0.14, 1.0), 6, 96, (0.05, 0.14), (0.8, 0.8, 0.8, 0.2), 0.8, 0.2, 0.5),
        score_init="constant",
        include_depthwise=True,
        include_stem=True,
        score_optimizer="sgd",
        lr_scores=50.0,
        keep="last",
        mask_also=("*.downsample.1.weight", "*.downsample.1.bias"),
        lr_head=0.15,
        head_constant_decay=1e-6,
        lr_period="epoch",
        norm_stats="adapt",
        epochs=150,
        working_size=224,
        num_prototypes=500,
        queue_length=512,
        prototype_freeze_steps=5005,
        expert_lr_share=1.0,
    ),
}

WITH_LABELS: dict[str, Recipe] = {
    # as the default without labels, but for what the views are compared with
    "default": replace(RECIPES["default"], objective="supervised", native_objective="", lr_head=1e-3),
    # arXiv 2409.07577, section 4.1, and the settings of its supervised ResNet runs, of which two are recorded: the
    # head here is the ordinary linear one of `submask_lin`; the other is a random frozen layer under a mask of its own
    "paper": replace(
        RECIPES["paper"],
        objective="supervised",
        views=ViewPlan(
            1,
            224,
            (1.0, 1.0),
            0,
            96,
            (0.05, 0.14),
            (0.4, 0.4, 0.4, 0.4),
            0.8,
            0.2,
            0.0,
            solarize_probability=0.2,
        ),
        lr_head=7e-4,
        head_constant_decay=1e-4,
        warmup_share=40 / 150,
        prototype_freeze_steps=0,
        fits_classifier=False,
    ),
}
"""What the recipes of these names are with `--labels`."""


def recipe_of(name: str, labels: str | None) -> Recipe:
    """The recipe of a name, with or without labels.

    Raises:
        KeyError: there is none.
    """
    return RECIPES[name] if labels is None else WITH_LABELS[name]
