"""smn plan: what smn adapt would do with the same words, and what it would take."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from smn_cli.config.options import AdaptOptions
from smn_cli.errors import UsageError
from smn_cli.terminal.options import DeviceOption, ImagesArgument, JsonOption, WeightsOption, WorkersOption
from smn_cli.terminal.settings import explain_plan
from smn_cli.terminal.wishes import takes_wishes

if TYPE_CHECKING:
    from smn_cli.console import Output
    from smn_cli.data.checking import ImageSet
    from smn_cli.training.estimate import Estimate
    from smn_cli.training.rehearsal import Rehearsal


@takes_wishes
def plan(
    *,
    images: ImagesArgument = None,
    arch: Annotated[str | None, typer.Option("--arch", help="Any timm model name.")] = None,
    weights: WeightsOption = None,
    wishes: AdaptOptions,
    device: DeviceOption = "auto",
    workers: WorkersOption = None,
    json: JsonOption = None,
) -> None:
    """Say what smn adapt would do and what it takes, after a few real steps that leave nothing behind."""
    if arch is None or not images:
        raise UsageError("smn plan needs IMAGES and --arch, as smn adapt does")
    from smn_cli.backbones.loading import load_backbone
    from smn_cli.console import Output
    from smn_cli.data.classes import find_labeled_images
    from smn_cli.data.finding import find_images
    from smn_cli.terminal.options import resolve_device, resolve_workers
    from smn_cli.training.estimate import estimate_run
    from smn_cli.training.preparing import num_wanted
    from smn_cli.training.rehearsal import rehearse
    from smn_cli.training.session import RunOptions

    output = Output(json)
    options = RunOptions(resolve_device(device), resolve_workers(workers))
    labeled = find_labeled_images(images, wishes)
    paths = find_images(images, note=output.talk) if labeled is None else labeled.paths
    output.talk(f"loading {arch}" + (f" from {weights}" if weights else " from timm's hub"))
    backbone = load_backbone(arch, weights)
    for note in backbone.notes:
        output.talk(f"  {note}")
    sample, check_s = _check_sample(paths, wishes)
    output.talk(f"taking a few steps with {len(sample.good)} of {len(paths)} images; nothing of it stays")
    rehearsal = rehearse(backbone, sample, wishes, options, labeled)
    estimate = estimate_run(
        rehearsal,
        num_usable=sample.num_usable,
        num_sample=len(sample.good),
        check_s=check_s * num_wanted(len(paths), wishes),
        path_bytes=sum(len(str(path.absolute())) + 1 for path in sample.good) // len(sample.good),
    )
    explain_plan(output, rehearsal.plan, num_weights=rehearsal.num_weights, num_tensors=rehearsal.num_tensors)
    _show(output, sample, wishes, rehearsal, estimate, options.device)
    output.json(
        {
            "schema": "smn.plan/1",
            "arch": backbone.arch,
            "device": options.device,
            "workers": options.num_workers,
            **_describe(sample, rehearsal, estimate),
        }
    )


def _check_sample(paths: list[Path], wishes: AdaptOptions) -> "tuple[ImageSet, float]":
    """A checked sample, and the seconds an image that it took."""
    from dataclasses import replace

    from smn_cli.data.checking import check_images
    from smn_cli.training.rehearsal import draw_sample

    drawn = draw_sample(paths, wishes)
    started = time.monotonic()
    checked = check_images(drawn, max_bad=1)  # a share in a sample is no verdict on the whole
    seconds = (time.monotonic() - started) / len(drawn)
    return replace(checked, num_unseen=len(paths) - len(drawn)), seconds


def _show(
    output: "Output",
    sample: "ImageSet",
    wishes: AdaptOptions,
    rehearsal: "Rehearsal",
    estimate: "Estimate",
    device: str,
) -> None:
    from smn_cli.console import duration, size

    num_seen = len(sample.good) + len(sample.bad)
    output.result(f"images: {sample.num_found:,} found, {estimate.num_used:,} of them used")
    stops = len(sample.bad) > wishes.max_bad * num_seen
    warning = f": more than --max-bad {wishes.max_bad:g}, at which smn adapt stops" if stops else ""
    output.result(f"unusable: {len(sample.bad)} of {num_seen} looked at{warning}")
    for alarm in rehearsal.alarms:
        output.result(f"alarm, which would stop the run before its first step: {alarm}")
    plan, step_s = rehearsal.plan, rehearsal.median_step_s
    output.result(
        f"steps: {plan.num_steps:,} of {plan.batch_size} images; {step_s:.3g} s a step, "
        f"{plan.batch_size / step_s:.0f} images/s (median of {len(rehearsal.step_s)} steps on {device})"
    )
    parts = ", ".join(f"{part} {duration(seconds)}" for part, seconds in estimate.seconds.items())
    output.result(f"time: about {duration(estimate.total_s)} ({parts})")
    if estimate.process_bytes is not None:
        on_device = f", {size(rehearsal.device_bytes)} on {device}" if rehearsal.device_bytes is not None else ""
        output.result(f"memory: about {size(estimate.process_bytes)}{on_device}, without loader processes")
    output.result(f"run folder: at most about {size(estimate.run_folder_bytes)}")
    if estimate.adapter_bytes is None:
        output.result("adapter: none, --train full trains the weights themselves")
    else:
        low, high = estimate.adapter_bytes
        output.result(f"adapter: {size(low)} to {size(high)}, estimated from full-length runs of the default recipe")


def _describe(sample: "ImageSet", rehearsal: "Rehearsal", estimate: "Estimate") -> dict[str, Any]:
    return {
        "images": {
            "found": sample.num_found,
            "used": estimate.num_used,
            "looked_at": len(sample.good) + len(sample.bad),
            "bad": {str(path): reason for path, reason in sample.bad.items()},
        },
        "plan": rehearsal.plan.to_json(),
        "weights": rehearsal.num_weights,
        "alarms": rehearsal.alarms,
        "step_s": rehearsal.median_step_s,
        "measured_steps": len(rehearsal.step_s),
        "images_per_s": rehearsal.plan.batch_size / rehearsal.median_step_s,
        "seconds": {**estimate.seconds, "total": estimate.total_s},
        "memory_bytes": {"process": estimate.process_bytes, "device": rehearsal.device_bytes},
        "run_folder_bytes": estimate.run_folder_bytes,
        "adapter_bytes": list(estimate.adapter_bytes) if estimate.adapter_bytes else None,
    }
