"""How a run's settings meet its network: the device, the sizes that it can take, how images reach it."""

from dataclasses import replace

import torch

from smn_cli.backbones.loading import Backbone, check_sizes
from smn_cli.config.options import AdaptOptions
from smn_cli.config.plan import AdaptPlan
from smn_cli.config.planning import make_plan
from smn_cli.data.classes import LabeledImages
from smn_cli.data.preprocessing import Preprocessing
from smn_cli.errors import BackboneError
from smn_cli.evaluation.precision import fast_precision
from smn_cli.training.classifying import check_classes


def plan_that_runs(
    wishes: AdaptOptions, num_images: int, backbone: Backbone, device: str, labeled: LabeledImages | None = None
) -> AdaptPlan:
    """The plan, at the native size if the network cannot take the derived one (a ViT with fixed positions)."""
    plan = make_plan(
        wishes,
        num_images,
        native_size=backbone.native_size,
        on_cpu=device.startswith("cpu"),
        precision=fast_precision(torch.device(device)),
        num_classes=check_classes(backbone, labeled),
    )
    local = {plan.views.local_size} if plan.views.num_local else set()
    try:
        check_sizes(backbone, sorted({plan.views.global_size, plan.teacher_size} | local))
    except BackboneError:
        if wishes.size is not None or plan.views.global_size == backbone.native_size:
            raise
        return plan_that_runs(replace(wishes, size=backbone.native_size), num_images, backbone, device, labeled)
    return plan


def place(backbone: Backbone, device: str) -> None:
    """Put a backbone on a device, channels last."""
    backbone.model.to(torch.device(device)).to(memory_format=torch.channels_last)


def preprocessing_of(backbone: Backbone, size: int) -> Preprocessing:
    """How images reach this backbone at a given size."""
    return Preprocessing(size, backbone.mean, backbone.std, backbone.interpolation)
