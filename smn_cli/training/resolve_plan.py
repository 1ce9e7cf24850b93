"""How a run's settings meet its network: the sizes that it can take, the classifier that it has."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from smn_cli.backbones.loading import Backbone, check_sizes
from smn_cli.backbones.stages import has_stages
from smn_cli.config.options import AdaptOptions
from smn_cli.config.plan import AdaptPlan
from smn_cli.config.teachers import LAST, STAGES
from smn_cli.data.labels.labeled_images import LabeledImages
from smn_cli.errors import BackboneError
from smn_cli.evaluation.precision import fast_precision
from smn_cli.training.choose_precision import choose_precision
from smn_cli.training.lesson import why_stages_teach
from smn_cli.training.mask_setup import names_to_train, why_late
from smn_cli.training.planning import make_plan
from smn_cli.training.trunk_plan import with_trunk_cache


def resolve_plan(
    options: AdaptOptions,
    num_images: int,
    backbone: Backbone,
    device: str,
    labeled: LabeledImages | None = None,
    *,
    paths: Sequence[Path] = (),
    tell: Callable[[str], None] | None = None,
    num_processes: int = 1,
) -> AdaptPlan:
    """The plan, at the native size if the network cannot take the derived one (a ViT with fixed positions).

    Below that size images at `paths` tell who teaches.

    Its precision is what trains fastest here, unless one was asked for; `tell` hears it if that has to be measured, and
    without it nothing is measured. The backbone is on the device.
    """
    planned = partial(
        make_plan,
        options,
        num_images,
        native_size=backbone.native_size,
        precision=fast_precision(torch.device(device)),
        num_classes=count_classes(backbone, labeled),
    )
    plan = planned()
    local = {plan.views.local_size} if plan.views.num_local else set()
    try:
        check_sizes(backbone, sorted({plan.views.global_size, plan.teacher_size} | local))
    except BackboneError:
        if options.size is not None or plan.views.global_size == backbone.native_size:
            raise
        native = replace(options, size=backbone.native_size)
        return resolve_plan(native, num_images, backbone, device, labeled, tell=tell, num_processes=num_processes)
    if why := why_stages_teach(options, plan, backbone, paths):
        plan = planned(why_stages=why)
    if plan.teachers == (STAGES,) and not options.teacher and not has_stages(backbone.model, plan.teacher_size):
        reason = f"{backbone.arch} has no stages that can be read, so its last layer teaches"
        plan = replace(plan, teachers=(LAST,), reasons={**plan.reasons, "teachers": reason})
    if plan.mask_only and not options.mask_only:
        plan = replace(plan, reasons={**plan.reasons, "mask_only": why_late(backbone.model, plan)})
    if options.precision is None and tell is not None:
        names = names_to_train(backbone.model, plan)
        chosen = choose_precision(backbone.model, plan.views.global_size, names, tell=tell)
        reasons = {**plan.reasons, "precision": chosen.reason} if chosen.reason else plan.reasons
        plan = replace(plan, precision=chosen.precision, reasons=reasons)
    return with_trunk_cache(plan, options.cache_trunk, backbone, num_images, num_processes)


def count_classes(backbone: Backbone, labeled: LabeledImages | None) -> int:
    """Number of classes; 0 without labels.

    Raises:
        BackboneError: timm's classifier of this network is not one linear layer, so that none could be put back.
    """
    if labeled is None:
        return 0
    if not backbone.classifier_name:
        raise BackboneError(
            f"the classifier of {backbone.arch} is not one linear layer over the features: `labels` cannot replace it; "
            "choose another `arch`"
        )
    return len(labeled.classes)
