"""What `smn adapt` and `smn demo` say of a run that has ended."""

from typing import TYPE_CHECKING

from smn_cli.terminal.flags import in_flags

if TYPE_CHECKING:
    from smn_cli.console import Output
    from smn_cli.schemas.runs import AdaptJson
    from smn_cli.training.session import Session


def conclude_run(output: "Output", session: "Session", seconds: float) -> "AdaptJson":
    """Write the report, say what is kept and why, and return the JSON of `smn adapt`."""
    from smn_cli.masking.backbone import density
    from smn_cli.process import Typed
    from smn_cli.reports.page import Ending, write_report
    from smn_cli.runs.run_result import read_learned

    session.close()
    session.team.wait()  # the first process has saved what all read from here on
    run, plan = session.folder.path, session.plan
    learned = read_learned(session.folder)
    ending = Ending(Typed.command, seconds, is_resumed="--resume" in Typed.command.split(), say=in_flags)
    output.talk(f"report: {write_report(session, ending, learned)}")
    for alarm in learned.alarms:
        output.talk(f"alarm: {in_flags(alarm)}")
    is_identity = plan.keep == "best" and learned.step == 0
    kept = "the identity mask" + (", with the base's own classifier" if learned.classifier is not None else "")
    if not plan.num_steps:
        output.result(f"{run}: not trained, as asked; it holds the base ({kept})")
        output.result(f"next: smn pack {run} --readout stages (or centred, whitened)")
    elif is_identity and session.trainer.step == 0:
        output.result(f"{run}: not trained, because of the alarm; the base itself is kept ({kept})")
    elif is_identity:
        output.result(f"{run}: nothing beat the base, so the base itself is kept ({kept})")
    else:
        judged = f", {learned.judge_gain:+.4f} against the base to its judge" if learned.judge_gain is not None else ""
        output.result(f"{run}: kept step {learned.step} of {session.trainer.step}{judged}")
        output.result(f"next: {'smn pack' if plan.mode.has_mask else 'smn eval DATA --run'} {run}")
    return {
        "schema": "smn.adapt/1",
        "run": str(run),
        "steps": session.trainer.step,
        "kept_step": learned.step,
        "trained": session.trainer.step > 0,
        "identity": is_identity,
        "judge_gain": learned.judge_gain,
        "alarms": list(learned.alarms),
        "density": density(learned.masks),
        "images": len(session.split.training),
        "classes": list(session.split.labeled.classes) if session.split.labeled is not None else [],
        "seconds": round(seconds, 1),
    }
