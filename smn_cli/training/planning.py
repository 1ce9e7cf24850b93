"""Options and the number of images to a plan, with the reason of every derived value."""

from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from smn_cli.config.options import AdaptOptions
from smn_cli.config.plan import AdaptPlan
from smn_cli.config.teachers import STAGES, parse_teacher
from smn_cli.errors import ClashError, DataError
from smn_cli.objectives.base import PlanRules
from smn_cli.objectives.table import refuse_idle, refuse_idle_options
from smn_cli.recipes import TRAIN_MODES, NormStats, Precision, Recipe, ScoreInit, ViewPlan, recipe_of

Value = TypeVar("Value")
MANY_IMAGES = 10_000
"""Fewer training images than so many are never drawn."""
NUM_EVALUATIONS = 5
"""Evaluations on the held-out images in a run; each costs about as much as five training steps a thousand images."""
SHORT = 1000
"""Steps of a run that relations teach, below which only the second, fourth and last of these evaluations are made: of
107 runs the same were kept by them, and the same real gains missed (docs/log.md)."""

_COPIED = (
    "embedding_dim", "temperature", "epsilon", "sinkhorn_iterations", "score_momentum",
    "head_momentum", "head_constant_decay", "lr_period", "mask_also", "prototype_freeze_steps",
)  # fmt: skip
MIN_HOLDOUT = 30
"""Held-out images below which no interval says anything."""


def make_plan(
    options: AdaptOptions,
    num_images: int,
    *,
    native_size: int = 224,
    precision: Precision = "fp32",
    num_classes: int = 0,
    why_stages: str = "",
) -> AdaptPlan:
    """Resolve options into a plan for `num_images` images.

    Args:
        options: what was asked for.
        num_images: usable images.
        native_size: side of the images that the backbone was trained on, in pixels.
        precision: what suits the device, if none was asked for.
        num_classes: of the labels; 0 without any.
        why_stages: why the network's own stages should teach below its native size, too; empty if they should not.

    Raises:
        UsageError: an option has no effect on the recipe's objective.
        DataError: fewer images than one batch.
    """
    refuse_idle_options(options)
    recipe = recipe_of(options.recipe, options.labels)
    reasons: dict[str, str] = {}
    size = _working_size(options, recipe, native_size, reasons)
    objective, teachers, rules = _lesson(options, recipe, size >= native_size, why_stages, reasons)
    batch_size = _batch_size(options, rules, num_images)
    num_holdout = _num_holdout(options, recipe, num_images, batch_size, reasons)
    num_training = num_images - num_holdout
    steps_per_epoch = num_training // batch_size
    num_steps = _num_steps(options, recipe, steps_per_epoch, reasons)
    training_images = _training_images(options, recipe, rules, num_training, num_steps, batch_size, reasons)
    num_seen = min(num_training, num_steps * batch_size, training_images or num_training) if num_steps else num_training
    views = _views(options, recipe, size, is_native=bool(teachers))
    return AdaptPlan(
        recipe=options.recipe,
        objective=objective,
        teachers=teachers,
        witness="" if options.witness is None else _resolved(options.witness),
        train=options.train,
        keep=options.keep or recipe.keep,
        views=views,
        teacher_size=_teacher_size(options, views.global_size, native_size, reasons),
        batch_size=batch_size,
        num_steps=num_steps,
        steps_per_epoch=(training_images or num_training) // batch_size,
        num_holdout=num_holdout,
        eval_every=_eval_every(num_steps, learns_relations=bool(teachers)),
        head_steps=_head_steps(recipe, num_steps, steps_per_epoch, reasons),
        num_prototypes=_num_prototypes(options, recipe, rules, num_seen, reasons),
        queue_length=_queue(options, recipe, rules, num_training, batch_size, reasons),
        queue_start_step=num_steps // 5 // steps_per_epoch * steps_per_epoch,
        score_start=_first(options.score_start, recipe.score_start),
        threshold=options.threshold,
        norm_stats=_norm_stats(options, recipe),
        seed=options.seed,
        precision=options.precision or precision,
        warmup_steps=_warmup_steps(recipe, num_steps, steps_per_epoch, reasons),
        num_classes=num_classes,
        training_images=training_images,
        reasons=reasons,
        **{name: getattr(options, name) for name in ("compile", "grad_checkpoint", "label_fraction")},
        **_rates(options, recipe),
        **_mask(options, recipe, reasons, is_native=bool(teachers)),
        **{name: getattr(recipe, name) for name in _COPIED},
    )


def _num_holdout(
    options: AdaptOptions, recipe: Recipe, num_images: int, batch_size: int, reasons: dict[str, str]
) -> int:
    if (options.keep or recipe.keep) == "last":
        return 0
    share = 5 if options.labels else 10
    num_holdout = min(max(num_images // share, MIN_HOLDOUT), 500, num_images - batch_size)
    if options.labels:
        num_holdout = min(num_holdout, num_images // 2)
    if num_holdout < MIN_HOLDOUT:
        reasons["num_holdout"] = "too few images to hold any out, so nothing can be judged"
        return 0
    part = "a fifth of the images, of every class," if options.labels else "a tenth of the images,"
    reasons["num_holdout"] = f"{part} between 30 and 500: never trained on, they decide what is kept"
    return num_holdout


def _num_steps(options: AdaptOptions, recipe: Recipe, steps_per_epoch: int, reasons: dict[str, str]) -> int:
    if options.steps is not None:
        return options.steps
    if options.epochs is not None:
        return options.epochs * steps_per_epoch
    if recipe.epochs is not None:
        reasons["num_steps"] = f"{recipe.epochs} epochs, as in the paper"
        return recipe.epochs * steps_per_epoch
    reasons["num_steps"] = "five epochs, at least 200 and at most 1,500 steps"
    return min(max(5 * steps_per_epoch, 200), 1500)


def _eval_every(num_steps: int, *, learns_relations: bool) -> int:
    parts = 2 if learns_relations and num_steps < SHORT else 1
    return max(1, -(-parts * num_steps // NUM_EVALUATIONS))


def _training_images(
    options: AdaptOptions,
    recipe: Recipe,
    rules: PlanRules,
    num_training: int,
    num_steps: int,
    batch_size: int,
    reasons: dict[str, str],
) -> int:
    """Images that train, where that is fewer than the steps could take; else 0."""
    if options.steps is not None or options.epochs is not None or recipe.epochs is not None:  # a length was asked for
        return 0
    num_draws = num_steps * batch_size
    most = max(num_draws // rules.num_visits, MANY_IMAGES)
    if min(num_training, num_draws) <= most:
        return 0
    visits = f"{num_draws / most:.1f} times"
    reasons["training_images"] = (
        f"of very many so few are drawn that each is seen {visits}; `steps` {num_steps} takes more"
    )
    return most


def _head_steps(recipe: Recipe, num_steps: int, steps_per_epoch: int, reasons: dict[str, str]) -> int:
    if not recipe.scores_wait_for_head:
        return 0
    reasons["head_steps"] = "two epochs, at least 60, at most 200 steps: an untrained head teaches the mask noise"
    return min(max(2 * steps_per_epoch, 60), 200, num_steps // 2)


def _warmup_steps(recipe: Recipe, num_steps: int, steps_per_epoch: int, reasons: dict[str, str]) -> int:
    if not recipe.warmup_share:
        return recipe.warmup_steps
    reasons["warmup_steps"] = "40 of 150 epochs, as in the paper"
    return int(recipe.warmup_share * num_steps + 0.5) // steps_per_epoch * steps_per_epoch


def _norm_stats(options: AdaptOptions, recipe: Recipe) -> NormStats:
    norm_stats: NormStats = options.norm_stats or recipe.norm_stats
    if TRAIN_MODES[options.train].adapts_statistics:
        norm_stats = "adapt"
    if options.grad_checkpoint and norm_stats == "adapt":
        words = "`grad_checkpoint` computes features twice, so statistics would adapt twice: leave it out"
        raise ClashError(words, "grad_checkpoint", ["norm_stats", "train", "recipe"])
    return norm_stats


def _num_prototypes(
    options: AdaptOptions, recipe: Recipe, rules: PlanRules, num_images: int, reasons: dict[str, str]
) -> int:
    if rules.prototypes is None:
        return 0
    if options.prototypes is not None:
        return min(options.prototypes, num_images)
    if recipe.num_prototypes is not None:
        reasons["num_prototypes"] = "as in the paper"
        return recipe.num_prototypes
    number, reasons["num_prototypes"] = rules.prototypes(num_images)
    return number


def _queue(
    options: AdaptOptions, recipe: Recipe, rules: PlanRules, num_images: int, batch_size: int, reasons: dict[str, str]
) -> int:
    if not rules.has_queue:
        return 0
    wanted = options.queue
    if wanted is None:
        wanted = recipe.queue_length
        reasons["queue_length"] = "as in the paper" if wanted else "a batch is enough for this many prototypes"
    return min(wanted, num_images) // batch_size * batch_size


def _teacher_size(options: AdaptOptions, size: int, native_size: int, reasons: dict[str, str]) -> int:
    if options.teacher_size is not None:
        return options.teacher_size
    reasons["teacher_size"] = "twice the working size, but not above the size that the backbone was trained at"
    return max(size, min(2 * size, native_size))


def _lesson(
    options: AdaptOptions, recipe: Recipe, is_native: bool, why_stages: str, reasons: dict[str, str]
) -> tuple[str, tuple[str, ...], PlanRules]:
    """Which objective, who teaches it, and its rules."""
    if not recipe.native_objective or not (is_native or options.teacher or why_stages):
        return recipe.objective, (), refuse_idle(options, recipe.objective, options.recipe)
    objective = recipe.native_objective
    rules = refuse_idle(options, objective, f"{options.recipe} at the backbone's own size, or with `teacher`")
    if options.teacher:
        return objective, tuple(dict.fromkeys(map(_resolved, options.teacher))), rules
    at_native = "at its own size the network's last blocks know more of the images than its last layer"
    reasons["teachers"] = at_native if is_native else why_stages
    return objective, (STAGES,), rules


def _resolved(teacher: str) -> str:
    """With the whole path of its file, since a run goes on from anywhere."""
    name = parse_teacher(teacher)
    return replace(name, weights=str(Path(name.weights).resolve())).text if name.weights else name.text


def _batch_size(options: AdaptOptions, rules: PlanRules, num_images: int) -> int:
    batch_size = options.batch_size or rules.batch_size
    if num_images < batch_size:
        raise DataError(
            f"{num_images} usable images are fewer than one batch of {batch_size}: add images or lower `batch_size`"
        )
    return batch_size


def _working_size(options: AdaptOptions, recipe: Recipe, native_size: int, reasons: dict[str, str]) -> int:
    if (size := options.size or recipe.working_size) is not None:
        return size
    reasons["views.global_size"] = "the size that the backbone was trained at; a smaller one takes less time"
    return native_size


def _views(options: AdaptOptions, recipe: Recipe, size: int, *, is_native: bool) -> ViewPlan:
    # local views keep their share of the global ones; 32 px is the stride of nearly every backbone
    local = max(32, round(recipe.views.local_size * size / recipe.views.global_size / 32) * 32)
    views = replace(recipe.views, global_size=size, local_size=local)
    if options.local_views is not None:
        views = replace(views, num_local=options.local_views)
    return replace(views, global_area=recipe.native_area) if is_native else views


def _rates(options: AdaptOptions, recipe: Recipe) -> dict[str, Any]:
    """What moves scores, or without a mask the weights themselves, and how fast."""
    has_mask = TRAIN_MODES[options.train].has_mask
    return {
        "score_optimizer": recipe.score_optimizer if has_mask else "adam",
        "lr_scores": _first(options.lr_scores, recipe.lr_scores if has_mask else recipe.lr_tuned),
        "lr_head": _first(options.lr_head, recipe.lr_head),
    }


def _mask(options: AdaptOptions, recipe: Recipe, reasons: dict[str, str], *, is_native: bool) -> dict[str, Any]:
    """What a mask may cut, by which rule, and where its scores start."""
    if options.density is not None:
        reasons["density"] = "the largest scores of every tensor, exactly this fraction of them, rounded up"
    if options.density_start is not None:
        reasons["density_start"] = "falls to the density at the last step; a state kept before that has its own"
    return {
        "mask_kind": options.mask_kind,
        "density": options.density,
        "density_start": options.density_start,
        "score_init": _score_init(options, recipe, reasons),
        "mask_only": _mask_only(options, recipe, reasons, is_native=is_native),
        "include_depthwise": _first(options.include_depthwise, recipe.include_depthwise),
        "include_stem": _first(options.include_stem, recipe.include_stem),
    }


def _mask_only(options: AdaptOptions, recipe: Recipe, reasons: dict[str, str], *, is_native: bool) -> tuple[str, ...]:
    if options.mask_only:
        reasons["mask_only"] = "every other weight is kept for ever"
        return options.mask_only
    asks_for_early = options.include_stem or options.include_depthwise
    if not is_native or options.train != "mask" or asks_for_early:
        return ()
    return (f"late:{recipe.native_trunk:g}",)


def _score_init(options: AdaptOptions, recipe: Recipe, reasons: dict[str, str]) -> ScoreInit:
    if options.score_init is not None or options.mask_kind == "threshold":
        return options.score_init or recipe.score_init
    if recipe.score_init == "constant":
        reasons["score_init"] = "equal scores have no largest; drawn at random, as the paper's topk baseline does"
        return "kaiming"
    return recipe.score_init


def _first(asked: Value | None, default: Value) -> Value:
    return default if asked is None else asked
