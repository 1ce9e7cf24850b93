"""The plan of a cascade's expert: the dispatcher's, on fewer images."""

from dataclasses import replace

from smn_cli.config.options import AdaptOptions
from smn_cli.config.plan import AdaptPlan
from smn_cli.errors import DataError
from smn_cli.objectives.table import objective_of
from smn_cli.recipes import recipe_of
from smn_cli.training.planning import MIN_HOLDOUT, make_plan

_DERIVED = (
    "num_steps", "steps_per_epoch", "num_holdout", "eval_every", "head_steps", "num_prototypes", "queue_length",
    "queue_start_step", "training_images", "seed",
)  # fmt: skip


def min_images(plan: AdaptPlan) -> int:
    """Images below which there is no expert: a batch, and beside it those that judge unless the last state is kept."""
    return plan.batch_size + (MIN_HOLDOUT if plan.keep == "best" else 0)


def make_expert_plan(
    dispatcher: AdaptPlan, num_images: int, *, num_steps: int | None = None, seed: int = 0, has_head: bool = False
) -> AdaptPlan:
    """Settings of an expert: the dispatcher's but for what follows from the number of images.

    Args:
        dispatcher: plan of the dispatcher's run.
        num_images: of the expert's cluster.
        num_steps: length of the run; None for the dispatcher's.
        seed: of the run.
        has_head: whether it goes on with the dispatcher's head, so that the scores need not wait for one.

    Raises:
        DataError: too few images.
    """
    if num_images < min_images(dispatcher):
        raise DataError(
            f"{num_images} images are too few for an expert: expected {min_images(dispatcher)}, a batch and those "
            "that judge; give fewer `experts` or more images"
        )
    rules = objective_of(dispatcher).rules
    # a head goes on with its prototypes; else those that were asked for stay
    keeps_prototypes = rules.prototypes and (rules.has_head or "num_prototypes" not in dispatcher.reasons)
    options = AdaptOptions(
        recipe=dispatcher.recipe,
        steps=num_steps or dispatcher.num_steps,
        batch_size=dispatcher.batch_size,
        size=dispatcher.views.global_size,
        prototypes=dispatcher.num_prototypes if keeps_prototypes else None,
        queue=dispatcher.queue_length if rules.has_queue else None,
        teacher=dispatcher.teachers,
        keep=dispatcher.keep,
        seed=seed,
    )
    is_native = dispatcher.objective == recipe_of(dispatcher.recipe, None).native_objective
    derived = make_plan(options, num_images, native_size=1 if is_native else 10**6)
    reasons = {name: why for name, why in derived.reasons.items() if name in ("num_holdout", "num_prototypes")}
    if num_steps is None:
        reasons["num_steps"] = (
            "as many as the dispatcher took, as in the paper: a smaller cluster is seen more often (epochs of the "
            "dispatcher times all images over the cluster's)"
        )
    plan = replace(dispatcher, **{name: getattr(derived, name) for name in _DERIVED}, reasons=reasons)
    plan = replace(plan, density_start=None)  # the dispatcher's density has fallen; from there the expert starts
    plan = replace(plan, cached_views=0, cached_bytes=0)  # of other images
    return replace(plan, head_steps=0) if has_head else plan
