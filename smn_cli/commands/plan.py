"""smn plan: what smn adapt would do with the same words, and what it would take."""

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

from smn_cli.config.options import AdaptOptions
from smn_cli.errors import UsageError
from smn_cli.terminal.flags import in_flags
from smn_cli.terminal.option_parameters import takes_options
from smn_cli.terminal.options import ArchOption, DeviceOption, ImagesArgument, JsonOption, WeightsOption, WorkersOption
from smn_cli.terminal.settings import explain_plan

LONG_S = 3600.0
"""Above this many seconds a plan says what else there is."""
SHORTEST_TOLD_S = 0.5
"""Parts of a run that take no more would be told as 0 s, and are left out."""

if TYPE_CHECKING:
    from smn_cli.config.plan import AdaptPlan
    from smn_cli.console import Output
    from smn_cli.data.images.validate import ImageSet
    from smn_cli.schemas.runs import PlanContentJson, PlanJson, PlannedSecondsJson, SmallerPlanJson
    from smn_cli.schemas.settings import SettingsJson
    from smn_cli.training.cost_estimate import Estimate
    from smn_cli.training.profiling import Profile


@takes_options
def plan(
    *,
    images: ImagesArgument = None,
    arch: ArchOption = None,
    weights: WeightsOption = None,
    options: AdaptOptions,
    device: DeviceOption = "auto",
    workers: WorkersOption = None,
    json: JsonOption = None,
) -> None:
    """Say what smn adapt would do and what it takes, after a few real steps that leave nothing behind.

    Examples:
        smn plan ./images --arch resnet50
        smn plan ./images --arch resnet50 --recipe paper --json plan.json
    """
    if arch is None or not images:
        raise UsageError("smn plan needs IMAGES and --arch, as smn adapt does")
    from smn_cli.console import Output, say_at_once

    say_at_once("smn plan: loading torch")
    from smn_cli.backbones.loading import load_backbone
    from smn_cli.data.images.find import find_images
    from smn_cli.data.labels.labeled_images import find_labeled_images
    from smn_cli.objectives.table import refuse_idle_options
    from smn_cli.terminal.options import resolve_device, resolve_workers
    from smn_cli.training.profiling import profile_run, profile_smaller
    from smn_cli.training.run_context import Execution
    from smn_cli.training.teachers import check_teachers

    refuse_idle_options(options)
    check_teachers((*options.teacher, *filter(None, [options.witness])))
    output = Output(json)
    execution = Execution(resolve_device(device), resolve_workers(workers))
    labeled = find_labeled_images(images, options)
    paths = find_images(images, note=output.talk) if labeled is None else labeled.paths
    output.talk(f"loading {arch}" + (f" from {weights}" if weights else " from timm's hub"))
    backbone = load_backbone(arch, weights)
    for note in backbone.notes:
        output.talk(f"  {in_flags(note)}")
    sample, check_s = _check_sample(paths, options)
    output.talk(f"taking a few steps with {len(sample.good)} of {len(paths)} images; nothing of it stays")
    profile = profile_run(backbone, sample, options, execution, labeled)
    estimate = _estimate(profile, sample, check_s)
    explain_plan(output, profile.plan, num_weights=profile.num_weights, num_tensors=profile.num_tensors)
    _show(output, sample, options, profile, estimate, execution.device)
    smaller: SmallerPlanJson | None = None
    if (its_profile := profile_smaller(profile.plan, backbone, sample, options, execution, labeled)) is not None:
        smaller = _show_smaller(output, profile, its_profile, _estimate(its_profile, sample, check_s))
    _show_ways_out(output, profile.plan, estimate, smaller)
    content: PlanJson = {
        "schema": "smn.plan/1",
        "arch": backbone.arch,
        "device": execution.device,
        "workers": execution.num_workers,
        **_describe(sample, profile, estimate),
    }
    if smaller is not None:
        content["smaller"] = smaller
    output.json(content)


def _estimate(profile: "Profile", sample: "ImageSet", check_s: float) -> "Estimate":
    from smn_cli.training.cost_estimate import estimate_run

    return estimate_run(
        profile,
        num_usable=sample.num_usable,
        num_sample=len(sample.good),
        check_s=check_s,
        path_bytes=sum(len(str(path.absolute())) + 1 for path in sample.good) // len(sample.good),
    )


def _show_smaller(
    output: "Output", profile: "Profile", smaller: "Profile", its_estimate: "Estimate"
) -> "SmallerPlanJson":
    """The other use of smn: the same images at a fraction of the work."""
    from smn_cli.console import duration

    size, (own, less) = (
        smaller.plan.views.global_size,
        (each.median_step_s / each.plan.batch_size for each in (profile, smaller)),
    )
    output.result(
        f"with --size {size}: about {duration(its_estimate.total_s)}, an image trains in {own / less:.1f} times less "
        "time; for a network that is to see images of that size"
    )
    return {"size": size, "seconds": its_estimate.total_s, "step_s": smaller.median_step_s}


def _show_ways_out(
    output: "Output", plan: "AdaptPlan", estimate: "Estimate", smaller: "SmallerPlanJson | None"
) -> None:
    """What else there is where a run takes long."""
    from smn_cli.console import duration

    if estimate.total_s <= LONG_S:
        return
    fewer = f"--steps {max(1, plan.num_steps // 4)} takes a quarter of the steps"
    size = f", --size {smaller['size']} sees smaller images" if smaller is not None else ""
    output.result(
        f"at {plan.views.global_size} px that is more than {duration(LONG_S)}: {fewer}{size}, and a GPU is far faster"
    )


def _check_sample(paths: list[Path], options: AdaptOptions) -> "tuple[ImageSet, float]":
    """A checked sample, and the seconds that all wanted images would take."""
    from smn_cli.data.images.validate import check_images
    from smn_cli.training.image_split import num_wanted
    from smn_cli.training.profiling import draw_sample

    drawn = draw_sample(paths, options)
    started = time.monotonic()
    checked = check_images(drawn, max_bad=1)  # a share in a sample is no verdict on the whole
    seconds = (time.monotonic() - started) / len(drawn) * num_wanted(len(paths), options)
    return replace(checked, num_unseen=len(paths) - len(drawn)), seconds


def _show(
    output: "Output",
    sample: "ImageSet",
    options: AdaptOptions,
    profile: "Profile",
    estimate: "Estimate",
    device: str,
) -> None:
    from smn_cli.console import duration, size

    num_seen = len(sample.good) + len(sample.bad)
    output.result(f"images: {sample.num_found:,} found, {estimate.num_used:,} of them used")
    stops = len(sample.bad) > options.max_bad * num_seen
    warning = f": more than --max-bad {options.max_bad:g}, at which smn adapt stops" if stops else ""
    output.result(f"unusable: {len(sample.bad)} of {num_seen} looked at{warning}")
    for alarm in profile.alarms:
        output.result(f"alarm, which would stop the run before its first step: {in_flags(alarm)}")
    plan, step_s = profile.plan, profile.median_step_s
    output.result(
        f"steps: {plan.num_steps:,} of {plan.batch_size} images; {step_s:.3g} s a step, "
        f"{plan.batch_size / step_s:.0f} images/s (median of {len(profile.step_s)} steps on {device})"
    )
    parts = [f"{part} {duration(seconds)}" for part, seconds in estimate.seconds.items() if seconds > SHORTEST_TOLD_S]
    output.result(f"time: about {duration(estimate.total_s)}" + (f" ({', '.join(parts)})" if parts else ""))
    if estimate.process_bytes is not None:
        on_device = f", {size(profile.device_bytes)} on {device}" if profile.device_bytes is not None else ""
        output.result(f"memory: about {size(estimate.process_bytes)}{on_device}, without loader processes")
    output.result(f"run folder: at most about {size(estimate.run_folder_bytes)}")
    if estimate.adapter_bytes is None:
        output.result("adapter: none, --train full trains the weights themselves")
    else:
        low, high = estimate.adapter_bytes
        output.result(f"adapter: {size(low)} to {size(high)}, estimated from full-length runs of the default recipe")


def _describe(sample: "ImageSet", profile: "Profile", estimate: "Estimate") -> "PlanContentJson":
    return {
        "images": {
            "found": sample.num_found,
            "used": estimate.num_used,
            "looked_at": len(sample.good) + len(sample.bad),
            "bad": {str(path): reason for path, reason in sample.bad.items()},
        },
        "plan": cast("SettingsJson", profile.plan.to_json()),
        "weights": profile.num_weights,
        "alarms": profile.alarms,
        "step_s": profile.median_step_s,
        "measured_steps": len(profile.step_s),
        "images_per_s": profile.plan.batch_size / profile.median_step_s,
        "seconds": cast("PlannedSecondsJson", {**estimate.seconds, "total": estimate.total_s}),
        "memory_bytes": {"process": estimate.process_bytes, "device": profile.device_bytes},
        "run_folder_bytes": estimate.run_folder_bytes,
        "adapter_bytes": list(estimate.adapter_bytes) if estimate.adapter_bytes else None,
    }
