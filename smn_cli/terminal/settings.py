"""What a run is going to do, and why: the settings that were derived."""

from operator import attrgetter
from typing import TYPE_CHECKING

from smn_cli.terminal.flags import in_flags

if TYPE_CHECKING:
    from smn_cli.config.plan import AdaptPlan
    from smn_cli.console import Output


def explain_plan(output: "Output", plan: "AdaptPlan", *, num_weights: int, num_tensors: int) -> None:
    """Say what is trained for how long, then each derived setting with its reason."""
    output.talk(
        f"recipe {plan.recipe}: {plan.num_steps} steps of {plan.batch_size}, views of {plan.views.global_size} px, "
        f"{num_weights:,} weights of {num_tensors} tensors {plan.mode.what}, "
        f"normalisation statistics {'adapted and carried' if plan.norm_stats == 'adapt' else 'frozen'}"
    )
    for name, reason in plan.reasons.items():
        value = attrgetter(name)(plan)
        shown = " ".join(value) if isinstance(value, tuple) else value
        what = name.rpartition(".")[2].removeprefix("num_").replace("_", " ")
        output.talk(f"  {what} {shown}: {in_flags(reason)}")
