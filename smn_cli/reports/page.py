"""Gathers what a finished run has to show and writes report.html."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from markupsafe import Markup

from smn_cli.atomic import write_atomically
from smn_cli.errors import SmnError
from smn_cli.judging.looks import Candidate
from smn_cli.masking.binarize import count_kept, effective_weight
from smn_cli.reports.curves import health_curves, loss_curve
from smn_cli.reports.figures import density_figure
from smn_cli.reports.gallery import common_folder, make_gallery
from smn_cli.reports.image_map import make_map
from smn_cli.reports.render import render_page
from smn_cli.reports.verdict import JudgeUnit, run_verdict
from smn_cli.runs.pack import adapter_of
from smn_cli.runs.run_folder import REPORT, RunFolder
from smn_cli.runs.run_result import Learned, read_learned
from smn_cli.training.session import Session


@dataclass(frozen=True)
class Ending:
    """How a run came to its end, which its folder does not tell.

    Attributes:
        command: as it was typed; empty for none.
        seconds: that the steps took, or those since the run was resumed.
        is_resumed: whether it was.
        now: when it ended; None for this moment.
        say: from words of the library, which name parameters, to those of whoever asked for the run.
    """

    command: str = ""
    seconds: float | None = None
    is_resumed: bool = False
    now: datetime | None = None
    say: Callable[[str], str] = str


def write_report(session: Session, ending: Ending | None = None, learned: Learned | None = None) -> Path:
    """Write report.html into the run folder: verdict, neighbours, map, curves, density by tensor, settings.

    Everything stands in the one file; it loads nothing from anywhere. All processes of a team call this.

    Args:
        session: that has ended.
        ending: what the page says of its end.
        learned: what `read_learned` gives of its folder, if somebody has read it already.
    """
    ending = ending or Ending()
    learned = learned or read_learned(session.folder)
    steps, evaluations = _read_metrics(session.folder.path)
    before = session.health.base_features
    # else each process of a team embeds a share
    after = session.health.remembered(learned.step) or session.health.embed(_kept(session, learned))
    path = session.folder.path / REPORT
    if not session.team.is_first:
        return path
    split, prepare = session.split, session.preprocessing
    curves = [loss_curve(steps), *health_curves(session.health.base_health.to_json(), evaluations)]
    page = render_page(
        "report.html.j2",
        session=session,
        images=_images_words(session),
        verdict=run_verdict(learned, evaluations, _unit(session), keep=session.plan.keep, taken=session.trainer.step),
        alarms=[ending.say(alarm) for alarm in learned.alarms],
        facts=_facts(session, learned, ending),
        ending=ending,
        ended=ending.now or datetime.now(timezone.utc),
        gallery=make_gallery(split, prepare, before, after),
        map=make_map(split.held_out, prepare, before[0], after[0]),
        curves=[curve for curve in curves if curve is not None],
        density_by_tensor=Markup(_density_by_tensor(learned)) if learned.masks else "",
        settings=_settings(session.plan.to_json()),
    )
    write_atomically(path, page)
    return path


def _read_metrics(folder: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Steps and judgements; records that a damaged file no longer has whole are passed over."""
    records = RunFolder(folder).read_metrics()
    judged = [record for record in records if isinstance(record.get("evaluation"), dict)]
    keys: Any = max((record["evaluation"].keys() for record in judged), key=len, default=None)
    return (
        [record for record in records if {"loss", "log_k"} <= record.keys()],
        [record for record in judged if record["evaluation"].keys() == keys],
    )


def _kept(session: Session, learned: Learned) -> Candidate:
    own = dict(session.backbone.model.named_parameters())
    weights = {name: effective_weight(own[name], mask.to(own[name].device)) for name, mask in learned.masks.items()}
    tensors = {**weights, **learned.weights, **learned.norm_stats}
    return session.context.candidate(tensors)


def _unit(session: Session) -> JudgeUnit:
    health = session.health.base_health
    num_images = len(session.split.held_out)
    if session.judge.uses_labels:
        return JudgeUnit("labels", 0.0, num_images)
    if session.health.counts_views and health.view_consistency is not None:
        return JudgeUnit("views", health.view_consistency, num_images)
    return JudgeUnit("likeness", health.neighbour_likeness, num_images)


def _images_words(session: Session) -> str:
    """How many images of which folder; its own name, since pages are shown to others."""
    paths = [*session.split.training, *session.split.held_out]
    name = "/".join(common_folder(paths).parts[-2:]).strip("/")
    return f"{len(set(paths)):,} images" + (f" of {name}" if name else "")


def _facts(session: Session, learned: Learned, ending: Ending) -> dict[str, tuple[str, str]]:
    """By name a number with its unit, and what else is to be known of it."""
    facts = _mask_facts(session, learned) if learned.masks else {}
    taken = f"{session.trainer.step:,} steps of {session.plan.batch_size} images"
    if ending.seconds is not None:
        title = "Training took, once resumed" if ending.is_resumed else "Training took"
        facts[title] = (_time(ending.seconds), f"{taken} in all, on {session.execution.device}")
    else:
        facts["Training"] = (f"{session.trainer.step:,} steps", f"of {session.plan.batch_size} images")
    held_out = f"{len(session.split.held_out):,} more held out, never trained on" if session.plan.num_holdout else ""
    facts["Trained on"] = (f"{len(session.split.training):,} images", held_out)
    return facts


def _time(seconds: float) -> str:
    return f"{seconds:.0f} seconds" if seconds < 60 else f"{seconds / 60:.1f} minutes"


def _mask_facts(session: Session, learned: Learned) -> dict[str, tuple[str, str]]:
    num_weights = sum(mask.numel() for mask in learned.masks.values())
    num_cut = num_weights - sum(count_kept(mask) for mask in learned.masks.values())
    facts = {"Weights cut": (f"{100 * num_cut / num_weights:.2f} %", f"{num_cut:,} of {num_weights:,} under the mask")}
    size = _adapter_bytes(session, learned)
    base = sum(4 * tensor.numel() for tensor in session.backbone.model.parameters())
    words = f"as smn pack makes it; the base has {base / 1e6:,.1f} MB"
    facts["Adapter file"] = (
        ("none", "smn pack refuses to, and says why") if size is None else (f"{size / 1e3:,.1f} kB", words)
    )
    return facts


def _adapter_bytes(session: Session, learned: Learned) -> int | None:
    """Of the file that `smn pack` would write; None where it would refuse to."""
    try:
        return len(adapter_of(learned, session.folder, session.backbone).to_bytes())
    except (SmnError, ValueError):
        return None


def _density_by_tensor(learned: Learned) -> str:
    names = list(learned.masks)
    return density_figure(names, [float(learned.masks[name].double().mean()) for name in names])


def _settings(plan: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Name, value and reason of every setting; those of views by their own names. What has a reason comes first."""
    reasons = plan["reasons"]
    flat: dict[str, Any] = {}
    for name, value in plan.items():
        if isinstance(value, dict) and name != "reasons":
            flat |= {f"{name}.{inner}": of_inner for inner, of_inner in value.items()}
        elif name != "reasons":
            flat[name] = value
    rows = [(name, _value(value), str(reasons.get(name, ""))) for name, value in flat.items()]
    return sorted(rows, key=lambda row: not row[2])


def _value(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(_value, value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value in (None, "") else str(value)
