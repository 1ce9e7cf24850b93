"""smn adapt: learn a mask from unlabeled images."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from smn_cli.config import AdaptOptions
from smn_cli.errors import UsageError
from smn_cli.terminal.conclusion import conclude_run
from smn_cli.terminal.options import DeviceOption, JsonOption, WeightsOption, WorkersOption
from smn_cli.terminal.tables import report_judgement

if TYPE_CHECKING:
    from smn_cli.console import Output
    from smn_cli.training.session import RunOptions, Session, StopSignal

DEFAULTS = AdaptOptions()


def adapt(
    images: Annotated[
        list[Path] | None, typer.Argument(metavar="IMAGES...", help="Folders, image files, text files of paths.")
    ] = None,
    arch: Annotated[str | None, typer.Option("--arch", help="Any timm model name.")] = None,
    weights: WeightsOption = None,
    out: Annotated[Path, typer.Option("--out", metavar="RUN", help="Run folder to make.")] = Path("run"),
    recipe: Annotated[
        str, typer.Option("--recipe", help="default; swav without a teacher; paper for its exact settings.")
    ] = "default",
    train: Annotated[
        str, typer.Option("--train", help="mask; or a baseline: norm (statistics only), full, head (nothing).")
    ] = "mask",
    val: Annotated[
        Path | None, typer.Option("--val", metavar="DIR", help="Labeled folders that decide what is kept.")
    ] = None,
    keep: Annotated[str | None, typer.Option("--keep", help="best (or the base, if nothing beat it), or last.")] = None,
    steps: Annotated[int | None, typer.Option("--steps", help="Length of the run; by default from the images.")] = None,
    epochs: Annotated[int | None, typer.Option("--epochs", help="The same, in passes over the images.")] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", help="Images a step.")] = DEFAULTS.batch_size,
    size: Annotated[int | None, typer.Option("--size", help="Side of the global views, in pixels.")] = None,
    teacher_size: Annotated[
        int | None, typer.Option("--teacher-size", help="Side of the views that the frozen network sees.")
    ] = None,
    local_views: Annotated[int | None, typer.Option("--local-views", help="Small views an image.")] = None,
    prototypes: Annotated[int | None, typer.Option("--prototypes", help="By default from the images.")] = None,
    queue: Annotated[int | None, typer.Option("--queue", help="Embeddings kept for the codes.")] = None,
    lr_scores: Annotated[float | None, typer.Option("--lr-scores", help="Learning rate of the scores.")] = None,
    lr_head: Annotated[float | None, typer.Option("--lr-head", help="Learning rate of the head.")] = None,
    norm_stats: Annotated[
        str | None, typer.Option("--norm-stats", help="frozen, or adapt to re-estimate and carry them.")
    ] = None,
    max_bad: Annotated[float, typer.Option("--max-bad", help="Fraction of bad images put up with.")] = DEFAULTS.max_bad,
    precision: Annotated[
        str | None, typer.Option("--precision", help="fp32, bf16; by default what trains fastest on the device.")
    ] = None,
    compile_: Annotated[bool, typer.Option("--compile", help="Compile the network with torch.compile first.")] = False,
    grad_checkpoint: Annotated[
        bool, typer.Option("--grad-checkpoint", help="Less memory, a third more time: activations are computed twice.")
    ] = False,
    seed: Annotated[int, typer.Option("--seed", help="Two runs with one seed are equal.")] = DEFAULTS.seed,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in --out.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run in --out.")] = False,
    save_every: Annotated[float, typer.Option("--save-every", min=0, help="Seconds between checkpoints.")] = 60.0,
    device: DeviceOption = "auto",
    workers: WorkersOption = None,
    json: JsonOption = None,
) -> None:
    """Learn a mask over a frozen timm backbone from unlabeled images."""
    wishes = AdaptOptions(
        recipe=recipe,
        train=train,  # type: ignore[arg-type]  # AdaptOptions refuses other words by name
        keep=keep,  # type: ignore[arg-type]
        teacher_size=teacher_size,
        steps=steps,
        epochs=epochs,
        batch_size=batch_size,
        size=size,
        local_views=local_views,
        prototypes=prototypes,
        queue=queue,
        lr_scores=lr_scores,
        lr_head=lr_head,
        norm_stats=norm_stats,  # type: ignore[arg-type]  # AdaptOptions refuses other words by name
        max_bad=max_bad,
        seed=seed,
        precision=precision,  # type: ignore[arg-type]
        compile=compile_,
        grad_checkpoint=grad_checkpoint,
    )
    from smn_cli.console import Output
    from smn_cli.terminal.options import resolve_device, resolve_workers
    from smn_cli.training.session import RunOptions

    output = Output(json)
    options = RunOptions(
        "" if resume and device == "auto" else resolve_device(device),
        resolve_workers(workers),
        save_every,
        on_look=output.counter("the frozen network looks at the images"),
        on_judgement=partial(report_judgement, output),
    )
    if resume:
        if images or arch or overwrite or wishes != DEFAULTS:
            raise UsageError(
                "--resume goes on with the settings of the run: leave out IMAGES, --arch and other settings"
            )
        session = _resume(output, out, weights, options, val)
    elif arch is None or not images:
        raise UsageError("smn adapt needs IMAGES and --arch, or --resume with the --out of a run")
    else:
        session = _start(output, images, arch, weights, out, wishes, overwrite, options, val)
    output.json(conclude_run(output, session, _train(output, session)))


def _start(
    output: "Output",
    images: list[Path],
    arch: str,
    weights: Path | None,
    out: Path,
    wishes: AdaptOptions,
    overwrite: bool,
    options: "RunOptions",
    val: Path | None,
) -> "Session":
    from smn_cli.backbones.loading import load_backbone
    from smn_cli.data.checking import check_images
    from smn_cli.data.finding import find_images
    from smn_cli.data.labeled import load_labeled_split
    from smn_cli.training.run_folder import RunFolder
    from smn_cli.training.session import Session

    RunFolder.check_free(out, overwrite=overwrite)
    labeled = load_labeled_split(val, for_selection=True) if val is not None else None
    paths = find_images(images)
    output.talk(f"loading {arch}" + (f" from {weights}" if weights else " from timm's hub"))
    backbone = load_backbone(arch, weights)
    for note in backbone.notes:
        output.talk(f"  {note}")
    with output.progress("checking images", len(paths)) as tick:
        checked = check_images(paths, max_bad=wishes.max_bad, progress=lambda done, _total: tick(done))
    output.talk(f"{len(checked.good)} images, {len(checked.bad)} unusable" + _where_listed(out, len(checked.bad)))
    session = Session.start(
        out, backbone, checked, wishes, weights=str(weights or ""), overwrite=overwrite, options=options, val=labeled
    )
    _explain(output, session)
    return session


def _resume(output: "Output", out: Path, weights: Path | None, options: "RunOptions", val: Path | None) -> "Session":
    from smn_cli.data.labeled import load_labeled_split
    from smn_cli.training.record import backbone_of_run
    from smn_cli.training.run_folder import RunFolder
    from smn_cli.training.session import Session

    config = RunFolder.open(out).read_config()
    judged_by = val or (Path(config["val"]) if config.get("val") else None)
    labeled = load_labeled_split(judged_by, for_selection=True) if judged_by is not None else None
    options = replace(options, device=options.device or str(config["device"]))
    session = Session.resume(out, backbone_of_run(config, weights), options=options, val=labeled)
    output.talk(f"continuing {out} after step {session.trainer.step} of {session.plan.num_steps}")
    return session


def _explain(output: "Output", session: "Session") -> None:
    plan = session.plan
    trained = session.trainer.source.trained
    what = {"mask": "under the mask", "full": "trained themselves", "norm": "left alone", "head": "left alone"}
    output.talk(
        f"recipe {plan.recipe}: {plan.num_steps} steps of {plan.batch_size}, views of {plan.views.global_size} px, "
        f"{sum(t.numel() for t in trained.values()):,} weights of {len(trained)} tensors {what[plan.train]}, "
        f"normalisation statistics {'adapted and carried' if plan.norm_stats == 'adapt' else 'frozen'}"
    )
    for name, reason in plan.reasons.items():
        output.talk(f"  {name.rpartition('.')[2]} {attrgetter(name)(plan)}: {reason}")


def _train(output: "Output", session: "Session") -> float:
    """Take the steps that are left; returns the seconds they took."""
    plan, started, first = session.plan, time.monotonic(), session.trainer.step
    with _saving_on_signals() as stop, output.progress("adapting", plan.num_steps, first) as tick:
        for report in session.steps(stop):
            rate = (report.step - first) * plan.batch_size / (time.monotonic() - started)
            tick(
                report.step,
                f"loss {report.loss:.3f} (ln K {report.log_k:.3f}) density {report.density:.4f} {rate:.0f} images/s",
            )
    return time.monotonic() - started


@contextmanager
def _saving_on_signals() -> "Iterator[StopSignal]":
    """Ctrl-C and SIGTERM ask the run to save and stop; a second Ctrl-C does not wait."""
    from smn_cli.training.session import StopSignal

    stop = StopSignal()

    def ask(number: int, _frame: object) -> None:
        if stop.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.requested = True

    previous = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _where_listed(out: Path, num_bad: int) -> str:
    return f", listed in {out / 'bad_images.txt'}" if num_bad else ""
