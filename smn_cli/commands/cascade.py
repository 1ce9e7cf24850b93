"""smn cascade: an expert for each cluster of a run's images, in one file with the run's own masks."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from smn_cli.cascade.options import CascadeOptions
from smn_cli.errors import ClashError, Interrupted, UsageError
from smn_cli.terminal.cascades import CascadeSizes, describe_experts, report_cascade
from smn_cli.terminal.flags import in_flags
from smn_cli.terminal.option_parameters import checked_by, names_given, takes_options
from smn_cli.terminal.options import DeviceOption, JsonOption, WeightsOption, WorkersOption
from smn_cli.terminal.stopping import saving_on_signals
from smn_cli.terminal.tables import report_judgement

if TYPE_CHECKING:
    from smn_cli.adapters.adapter import Adapter
    from smn_cli.cascade.cascade import Cascade
    from smn_cli.cascade.run import CascadeRun
    from smn_cli.console import Output
    from smn_cli.schemas.runs import CascadeJson
    from smn_cli.training.run_context import Execution
    from smn_cli.training.session import Session


def _check(
    *, resume: bool, images: Sequence[Path] | None, run: Path | None, overwrite: bool, options: CascadeOptions
) -> None:
    own = {"images": images, "run": run, "overwrite": overwrite}
    if resume and (others := [name for name, value in own.items() if value] + names_given(options)):
        words = "--resume goes on with the settings of the cascade: leave out IMAGES, --run and other settings"
        raise ClashError(words, "resume", others)


@takes_options
@checked_by(_check)
def cascade(
    *,
    images: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="IMAGES...", help="Folders, image files, tar, zip, parquet, text files of paths; or the run's own."
        ),
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(
            "--run", metavar="RUN", help="Run folder of the dispatcher, from smn adapt.", rich_help_panel="Network"
        ),
    ] = None,
    weights: WeightsOption = None,
    out: Annotated[
        Path, typer.Option("--out", metavar="CASCADE", help="Folder to make.", rich_help_panel="Output")
    ] = Path("cascade"),
    options: CascadeOptions,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the cascade in --out.", rich_help_panel="Run")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the cascade in --out.", rich_help_panel="Output")
    ] = False,
    save_every: Annotated[
        float,
        typer.Option("--save-every", min=0, metavar="SECONDS", help="Between checkpoints.", rich_help_panel="Run"),
    ] = 60.0,
    device: DeviceOption = "auto",
    workers: WorkersOption = None,
    json: JsonOption = None,
) -> None:
    """Experimental: train an expert for each cluster of the images, from a run's masks on, and write one cascade file.

    Examples:
        smn cascade --run run --out cascade
        smn cascade --run run --experts 3 --mode conditional --out cascade
    """
    if not resume and run is None:
        raise UsageError("smn cascade needs the --run of a dispatcher, or --resume with the --out of a cascade")
    from functools import partial

    from smn_cli.console import Output, say_at_once

    say_at_once("smn cascade: loading torch")
    from smn_cli.cascade.run import CascadeFolder
    from smn_cli.distributed import launched_size
    from smn_cli.terminal.options import resolve_device, resolve_workers
    from smn_cli.training.run_context import Execution

    if launched_size() > 1:
        raise UsageError("smn cascade works in one process: start it without torchrun")
    output = Output(json)
    on_resume = resume and device == "auto"
    chosen = str(CascadeFolder.open(out).read_config()["device"]) if on_resume else resolve_device(device)
    execution = Execution(
        chosen, resolve_workers(workers), save_every, on_judgement=partial(report_judgement, output, rival="dispatcher")
    )
    started = time.monotonic()
    if run is None:
        making = _resume(out, weights, execution)
    else:
        making = _start(output, images or [], run, weights, out, options, overwrite, execution)
    try:
        _train(output, making)
    except Interrupted as error:
        raise Interrupted(f"{str(error).partition(':')[0]}: continue with smn cascade --resume --out {out}") from None
    result, sizes = _finish(output, making)
    output.json(_describe(making, result, sizes, time.monotonic() - started))


def _start(
    output: "Output",
    images: list[Path],
    run: Path,
    weights: Path | None,
    out: Path,
    options: CascadeOptions,
    overwrite: bool,
    execution: "Execution",
) -> "CascadeRun":
    from smn_cli.cascade.run import CascadeFolder, CascadeRun
    from smn_cli.config.options import AdaptOptions
    from smn_cli.data.images.find import find_images
    from smn_cli.data.images.validate import check_images
    from smn_cli.runs.pack import pack_run
    from smn_cli.runs.run_config import backbone_of_run
    from smn_cli.runs.run_folder import RunFolder

    CascadeFolder.check_free(out, overwrite=overwrite)
    folder = RunFolder.open(run)
    backbone = backbone_of_run(folder.read_config(), weights)
    dispatcher = pack_run(folder, backbone)
    if not dispatcher.header.provenance["finished"]:
        output.talk(f"{run} is not finished: the cascade goes on from what it keeps so far")
    good = None
    if images:
        found = find_images(images, note=output.talk)
        with output.progress("checking images", len(found)) as tick:
            checked = check_images(found, max_bad=AdaptOptions.max_bad, progress=lambda done, _total: tick(done))
        good = checked.good
        for line in checked.bad_lines():
            output.talk(f"left out {line}")
    return CascadeRun.start(
        out, folder, backbone, dispatcher, options, images=good, overwrite=overwrite, execution=execution
    )


def _resume(out: Path, weights: Path | None, execution: "Execution") -> "CascadeRun":
    from smn_cli.cascade.run import CascadeFolder, CascadeRun
    from smn_cli.runs.run_config import backbone_of_run

    config = CascadeFolder.open(out).read_config()
    return CascadeRun.resume(out, backbone_of_run(config, weights), execution=execution)


def _train(output: "Output", making: "CascadeRun") -> None:
    """Fit the router and take the steps that are left of every expert."""
    with output.progress("embedding for the router", len(making.images)) as tick:
        sizes = making.cluster(tick)
    output.talk(f"clusters of {', '.join(map(str, sizes))} images ({making.options.cluster})")
    for number, num_images in enumerate(sizes):
        session = making.session(number)
        if session is None:
            output.talk(
                f"expert {number}: {num_images} images are too few for a batch and its judge, so the dispatcher's "
                "mask serves there; fewer --experts make larger clusters"
            )
            continue
        if not session.is_finished:
            output.talk(f"expert {number}: {num_images} images")
        try:
            _take_steps(output, session, f"expert {number} of {len(sizes)}")
        finally:
            session.close()
        for alarm in session.best_state.alarms:
            output.talk(f"expert {number}: alarm: {in_flags(alarm)}")


def _take_steps(output: "Output", session: "Session", what: str) -> None:
    with saving_on_signals() as stop, output.progress(what, session.plan.num_steps, session.trainer.step) as tick:
        for report in session.steps(stop):
            tick(report.step, f"loss {report.loss:.3f} density {report.density:.4f}")


def _finish(output: "Output", making: "CascadeRun") -> "tuple[Cascade, CascadeSizes]":
    from smn_cli.runs.pack import pack_run

    for line in describe_experts(making.records()):
        output.talk(line)
    experts = making.adapters(pack_run)
    num_networks = 1 if making.options.mode == "conditional" else len(experts)
    with output.progress("embedding for the combination", num_networks * len(making.images)) as tick:
        made = making.finish(experts, tick)
    sizes = _sizes(made, making.dispatcher, experts, making.options.dim)
    report_cascade(output, making.file, sizes, made.combination.kind)
    weights = making.folder.read_config()["weights"]
    with_weights = f" --weights {weights}" if weights else ""
    output.result(f"next: smn eval DATA --adapter {making.file}{with_weights} --knn --linear")
    return made, sizes


def _sizes(made: "Cascade", dispatcher: "Adapter", experts: "list[Adapter]", dim: int | None) -> CascadeSizes:
    from smn_cli.cascade.costs import combination_bytes

    own = len(dispatcher.to_bytes())
    combination = made.combination
    others = combination_bytes(combination.num_blocks, combination.num_features, dim)
    return CascadeSizes(
        made.sizes(),
        own,
        own + sum(len(expert.to_bytes()) for expert in experts),
        {**others, combination.kind: combination.num_bytes},
    )


def _describe(making: "CascadeRun", made: "Cascade", sizes: CascadeSizes, seconds: float) -> "CascadeJson":
    return {
        "schema": "smn.cascade/1",
        "cascade": str(making.folder.path),
        "file": str(making.file),
        "images": len(making.images),
        "experts": [record.to_json() for record in making.records()],
        "cluster": making.options.cluster,
        "combine": made.combination.kind,
        "dim": made.combination.dim,
        "mode": made.mode,
        **sizes.to_json(),
        "seconds": round(seconds, 1),
    }
