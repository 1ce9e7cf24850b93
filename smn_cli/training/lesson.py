"""Below a backbone's native size: do its stages teach what larger views show, or codes of its last layer?

Stages teach more (docs/log.md), but not of images like those that the backbone was trained on, whose last layer knows
best. Its classifier tells, asked at its native size and of images that need not be enlarged for it.
"""

from collections.abc import Sequence
from pathlib import Path

from smn_cli.backbones.folding import fold
from smn_cli.backbones.loading import Backbone
from smn_cli.backbones.stages import has_stages
from smn_cli.config.options import AdaptOptions
from smn_cli.config.plan import AdaptPlan
from smn_cli.data.images.sizes import usual_short_side
from smn_cli.data.views.loader import image_batches
from smn_cli.evaluation.features import extract_features, on_device
from smn_cli.judging.image_alarms import MAX_SURE, enlargement_alarms, how_sure
from smn_cli.recipes import recipe_of
from smn_cli.training.run_context import preprocessing_of

NUM_ASKED = 200
"""Images, evenly spaced: their mean is sure to about .02."""


def why_stages_teach(options: AdaptOptions, plan: AdaptPlan, backbone: Backbone, paths: Sequence[Path]) -> str:
    """The reason why stages should teach a run below the native size; empty if codes should, or if it was settled.

    Args:
        options: that were asked for.
        plan: that follows from them.
        backbone: on its device.
        paths: of the images, which were readable when they were checked; none are not asked.
    """
    size, native = plan.views.global_size, backbone.native_size
    is_open = bool(recipe_of(options.recipe, options.labels).native_objective) and not plan.teachers
    if not is_open or size >= native or not paths or enlargement_alarms(usual_short_side(paths), native):
        return ""
    names = [f"{backbone.classifier_name}.{part}" for part in ("weight", "bias")]
    if not all(name in backbone.classifier for name in names) or not has_stages(backbone.model, plan.teacher_size):
        return ""
    asked = list(paths[:: -(-len(paths) // NUM_ASKED)])
    network = on_device(fold(backbone.model, native).network, next(backbone.model.parameters()).device, plan.precision)
    features = extract_features(network, image_batches(asked, preprocessing_of(backbone, native)))
    sure = how_sure(features, *(backbone.classifier[name] for name in names))
    if sure is None or sure > MAX_SURE:
        return ""
    return (
        f"larger views show the last blocks more than the last layer knows: the backbone's own classifier gives its "
        f"likeliest class {sure:.2f} in the mean, at most {MAX_SURE:.2f}"
    )
