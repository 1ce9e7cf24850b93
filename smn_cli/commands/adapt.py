"""smn adapt: learn a mask from unlabeled images."""

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from smn_cli.config.options import AdaptOptions
from smn_cli.errors import ClashError, Interrupted, UsageError, first_few
from smn_cli.terminal.conclusion import conclude_run
from smn_cli.terminal.flags import in_flags
from smn_cli.terminal.option_parameters import checked_by, choosing, names_given, takes_options
from smn_cli.terminal.options import (
    TAKES_ADAPTER,
    ArchOption,
    DeviceOption,
    ImagesArgument,
    JsonOption,
    WeightsOption,
    WorkersOption,
)
from smn_cli.terminal.stopping import saving_on_signals
from smn_cli.terminal.tables import report_judgement
from smn_cli.training.run_logs import KINDS, check_logs

if TYPE_CHECKING:
    from smn_cli.console import Output
    from smn_cli.data.images.validate import ImageSet
    from smn_cli.training.run_context import Execution
    from smn_cli.training.session import Session


def _check(
    *,
    resume: bool,
    images: Sequence[Path] | None,
    arch: str | None,
    overwrite: bool,
    start: Path | None,
    options: AdaptOptions,
) -> None:
    own = {"images": images, "arch": arch, "overwrite": overwrite, "start": start}
    if resume and (others := [name for name, value in own.items() if value] + names_given(options)):
        words = "--resume goes on with the settings of the run: leave out IMAGES, --arch and other settings"
        raise ClashError(words, "resume", others)


@takes_options
@checked_by(_check)
def adapt(
    *,
    images: ImagesArgument = None,
    arch: ArchOption = None,
    weights: WeightsOption = None,
    out: Annotated[
        Path, typer.Option("--out", metavar="RUN", help="Run folder to make.", rich_help_panel="Output")
    ] = Path("run"),
    options: AdaptOptions,
    val: Annotated[
        Path | None,
        typer.Option("--val", metavar="DIR", help="Labeled folders that decide what is kept.", rich_help_panel="Data"),
    ] = None,
    start: Annotated[
        Path | None,
        typer.Option(
            "--start",
            metavar="RUN|FILE",
            help="Run or adapter whose mask is the start.",
            rich_help_panel="Network",
            **TAKES_ADAPTER,
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in --out.", rich_help_panel="Run")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the run in --out.", rich_help_panel="Output")
    ] = False,
    save_every: Annotated[
        float,
        typer.Option("--save-every", min=0, metavar="SECONDS", help="Between checkpoints.", rich_help_panel="Run"),
    ] = 60.0,
    device: DeviceOption = "auto",
    workers: WorkersOption = None,
    no_cache: Annotated[
        bool,
        typer.Option(
            "--no-cache", help="Embed every image, though features may be in the cache.", rich_help_panel="Run"
        ),
    ] = False,
    log: Annotated[
        list[str] | None,
        typer.Option("--log", help="Log there, too. May repeat.", rich_help_panel="Output", **choosing(KINDS)),
    ] = None,
    json: JsonOption = None,
) -> None:
    """Learn a mask over a frozen timm backbone from images, unlabeled or, with --labels, in class folders.

    Examples:
        smn adapt ./images --arch resnet50 --out run
        smn adapt ./images --arch resnet50 --mask-kind topk --density 0.9 --out run
    """
    from smn_cli.console import Output, say_at_once

    logs = check_logs(log or [], out if resume else None)
    say_at_once("smn adapt: loading torch")
    from smn_cli.distributed import device_of_process, team_of, told_of_the_others
    from smn_cli.features.cache import FeatureCache
    from smn_cli.runs.run_config import is_own_restart
    from smn_cli.terminal.options import resolve_device, resolve_workers
    from smn_cli.training.run_context import Execution

    if not resume and (arch is None or not images):
        raise UsageError("smn adapt needs IMAGES and --arch, or --resume with the --out of a run")
    chosen = device_of_process(_device_of_run(out) if resume and device == "auto" else resolve_device(device))
    with team_of(chosen) as team:
        resume = team.any(resume or is_own_restart(out))  # of several torchruns one may be new
        output = Output(json, is_silent=not team.is_first)
        execution = Execution(
            chosen,
            resolve_workers(workers),
            save_every,
            on_teacher_embedding=output.counter("frozen network looks at images"),
            on_judgement=partial(report_judgement, output),
            on_phase=output.talk,
            on_trunk=output.counter("frozen blocks look at kept views, batch"),
            team=team,
            cache=None if no_cache else FeatureCache(),
            logs=logs,
        )
        with told_of_the_others(team):
            if resume:
                session = _resume(output, out, weights, execution, val)
            else:
                session = _start(
                    output, images or [], str(arch), weights, out, options, overwrite, execution, val, start
                )
        seconds = _train(output, session)
        if execution.cache is not None and (found := execution.cache.num_found):
            output.talk(f"features of {found} images were in the cache; --no-cache embeds them again")
        output.json(conclude_run(output, session, seconds))


def _start(
    output: "Output",
    images: list[Path],
    arch: str,
    weights: Path | None,
    out: Path,
    options: AdaptOptions,
    overwrite: bool,
    execution: "Execution",
    val: Path | None,
    start: Path | None,
) -> "Session":
    from smn_cli.backbones.loading import load_backbone
    from smn_cli.data.images.find import find_images
    from smn_cli.data.labels.eval_split import load_labeled_split
    from smn_cli.data.labels.labeled_images import find_labeled_images
    from smn_cli.objectives.table import refuse_idle_options
    from smn_cli.runs.run_folder import RunFolder
    from smn_cli.terminal.settings import explain_plan
    from smn_cli.training.image_split import check_for_run, num_wanted
    from smn_cli.training.run_context import RunRequest
    from smn_cli.training.session import Session
    from smn_cli.training.teachers import check_teachers
    from smn_cli.training.warm_start import WarmStart, read_start_masks

    refuse_idle_options(options)
    check_teachers((*options.teacher, *filter(None, [options.witness])))
    team = execution.team
    if team.is_first:
        RunFolder.check_free(out, overwrite=overwrite)
    labeled = load_labeled_split(val, for_selection=True) if val is not None else None
    labels = team.from_first(lambda: find_labeled_images(images, options))
    paths = team.from_first(lambda: find_images(images, note=output.talk)) if labels is None else labels.paths
    output.talk(f"loading {arch}" + (f" from {weights}" if weights else " from timm's hub"))
    backbone = load_backbone(arch, weights)
    for note in backbone.notes:
        output.talk(f"  {in_flags(note)}")
    masks = read_start_masks(start, backbone) if start is not None else None
    with output.progress("checking images", num_wanted(len(paths), options)) as tick:
        checked = team.from_first(lambda: check_for_run(paths, options, progress=lambda done, _total: tick(done)))
    output.talk(_what_was_found(checked, out))
    if labels is not None:
        output.talk(f"{len(labels.classes)} classes: {first_few(list(labels.classes))}")
    request = RunRequest(out, checked, options, str(weights or ""), overwrite, labeled, labels)
    start_at = None if masks is None else WarmStart(masks)
    session = Session.start(request, backbone, execution=execution, start=start_at)
    trained = session.trainer.source.trained.values()
    explain_plan(
        output, session.plan, num_weights=sum(int(t.isfinite().sum()) for t in trained), num_tensors=len(trained)
    )
    return session


def _resume(output: "Output", out: Path, weights: Path | None, execution: "Execution", val: Path | None) -> "Session":
    from smn_cli.data.labels.eval_split import load_labeled_split
    from smn_cli.runs.run_config import backbone_of_run
    from smn_cli.runs.run_folder import RunFolder
    from smn_cli.training.session import Session

    config = RunFolder.open(out).read_config()
    judged_by = val or (Path(config["val"]) if config.get("val") else None)
    labeled = load_labeled_split(judged_by, for_selection=True) if judged_by is not None else None
    session = Session.resume(out, backbone_of_run(config, weights), execution=execution, val=labeled)
    output.talk(f"continuing {out} after step {session.trainer.step} of {session.plan.num_steps}")
    return session


def _device_of_run(out: Path) -> str:
    from smn_cli.runs.run_folder import RunFolder

    return str(RunFolder.open(out).read_config()["device"])


def _train(output: "Output", session: "Session") -> float:
    """Take the steps that are left; returns the seconds they took."""
    from smn_cli.distributed import told_of_the_others

    try:
        with told_of_the_others(session.team):
            return _take_steps(output, session)
    except Interrupted:
        if session.team.is_first:
            raise
        raise typer.Exit(Interrupted.exit_code) from None  # the first process says it for all


def _take_steps(output: "Output", session: "Session") -> float:
    plan, started, first = session.plan, time.monotonic(), session.trainer.step
    with saving_on_signals() as stop:
        session.look_ahead(stop)
        at_work = time.monotonic()
        with output.progress("adapting", plan.num_steps, first) as tick:
            for report in session.steps(stop):
                rate = (report.step - first) * plan.batch_size / (time.monotonic() - at_work)
                words = f"loss {report.loss:.3f}, density {report.density:.3f}, {rate:.0f} images/s"
                tick(report.step, words)
    return time.monotonic() - started


def _what_was_found(images: "ImageSet", out: Path) -> str:
    line = f"{len(images.good)} images, {len(images.bad)} unusable"
    if images.num_unseen:
        line = f"found {images.num_found} images, more than the run can use: {line} in a random draw"
    return line + (f", listed in {out / 'bad_images.txt'}" if images.bad else "")
