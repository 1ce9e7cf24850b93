"""All objectives by name, as recipes name them, and the options that each leaves without effect."""

from smn_cli.config.options import AdaptOptions
from smn_cli.config.plan import AdaptPlan
from smn_cli.errors import ClashError
from smn_cli.objectives.base import Objective, PlanRules
from smn_cli.objectives.neighbourhood import NeighbourhoodObjective
from smn_cli.objectives.supervised import SupervisedObjective
from smn_cli.objectives.swapped import SwappedObjective
from smn_cli.objectives.teacher import TaughtObjective
from smn_cli.recipes import RECIPES, TRAIN_MODES, recipe_of

OBJECTIVES: dict[str, type[Objective]] = {
    "taught": TaughtObjective,
    "neighbourhood": NeighbourhoodObjective,
    "swapped": SwappedObjective,
    "supervised": SupervisedObjective,
}


def objective_of(plan: AdaptPlan) -> type[Objective]:
    """The objective that a plan names.

    Raises:
        KeyError: there is none of that name.
    """
    return OBJECTIVES[plan.objective]


def refuse_idle(options: AdaptOptions, objective: str, where: str) -> PlanRules:
    """Refuse options that an objective leaves without effect, and return its rules.

    Args:
        options: as given.
        objective: by name.
        where: recipe and whatever else chose it, for the message.

    Raises:
        UsageError: the first of them.
    """
    rules = OBJECTIVES[objective].rules
    for name in rules.idle_options:
        if getattr(options, name) not in (None, ()):
            chosen_by = [each for each in ("recipe", "labels", "teacher", "size") if each != name]
            raise ClashError(f"`{name}` has no effect with `recipe` {where}", name, chosen_by)
    return rules


def refuse_idle_options(options: AdaptOptions) -> None:
    """Refuse options that have no effect on the objective of their recipe; to be asked before any work is done.

    Raises:
        UsageError: the first of them.
    """
    with_labels = " and `labels`" if options.labels else ""
    rules = refuse_idle(options, recipe_of(options.recipe, options.labels).objective, f"{options.recipe}{with_labels}")
    if not (TRAIN_MODES[options.train].changes_network or rules.has_head):
        others = ", ".join(name for name, recipe in RECIPES.items() if OBJECTIVES[recipe.objective].rules.has_head)
        raise ClashError(
            f"`train` {options.train}: `recipe` {options.recipe} has no head; add `recipe` {others} or `labels`",
            "train",
            ["recipe"],
        )
