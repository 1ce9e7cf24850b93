"""timm's config.json beside a checkpoint: what `local-dir:` folders and transformers read of a network."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn

from smn_cli.backbones.loading import Backbone
from smn_cli.data.preprocessing import Preprocessing
from smn_cli.errors import BackboneError
from smn_cli.seeding import fixed_generator

_OF_THE_NETWORK = ("pool_size", "min_input_size", "fixed_input_size", "first_conv", "classifier")
_OF_THE_WEIGHTS = ("license", "origin_url", "paper_ids")


def timm_config(
    backbone: Backbone, preprocessing: Preprocessing, *, num_classes: int, classes: tuple[str, ...] = ()
) -> dict[str, Any]:
    """The content of config.json.

    timm's own writer notes every argument that a model was built with in `model_args`, and transformers fails with some
    of them. Here there are none, but for a ViT that is used at another size than its own.

    Args:
        backbone: the network.
        preprocessing: how images are to be prepared for it.
        num_classes: of the classifier beside it; 0 if there is none.
        classes: their names, if they are known.
    """
    known = getattr(backbone.model, "pretrained_cfg", {})
    size = preprocessing.size
    is_resized = size != backbone.native_size
    told = {key: known[key] for key in _OF_THE_NETWORK if key in known}
    if backbone.tag:  # of a file's weights timm knows nothing
        told |= {key: known[key] for key in _OF_THE_WEIGHTS if known.get(key)}
    prepared = {key: value for key, value in asdict(preprocessing).items() if key != "size"}
    return {
        "architecture": backbone.arch,
        "num_classes": num_classes,
        "num_features": backbone.num_features,
        **({"label_names": list(classes)} if classes else {}),
        **_model_args(backbone, size),
        "pretrained_cfg": {
            **told,
            **({"pool_size": None} if is_resized else {}),
            "custom_load": False,
            "input_size": [3, size, size],
            **prepared,
            "crop_pct": 1.0,
            "crop_mode": "center",
            "num_classes": num_classes,
        },
    }


def _model_args(backbone: Backbone, size: int) -> dict[str, Any]:
    """What builds a network whose position embeddings adjust to the image, where they have to.

    transformers builds it by its name alone, which stands for the size of one of timm's weights.
    """
    named = timm.get_pretrained_cfg(backbone.arch)
    is_plain = named is not None and named.input_size[-1] == backbone.native_size == size
    if is_plain or not backbone.takes_any_size:
        return {}
    return {"model_args": {"img_size": backbone.native_size, "dynamic_img_size": True}}


def has_stages(backbone: Backbone) -> bool:
    """Whether its maps become smaller from stage to stage, as an encoder for segmentation needs them."""
    told = getattr(backbone.model, "feature_info", None)
    reductions = [each["reduction"] for each in told] if isinstance(told, list) else told.reduction() if told else []
    return len(set(reductions)) > 1


def check_loaded(live: nn.Module, folder: Path, size: int) -> None:
    """Refuse a folder of which timm makes another network than the one it was written of.

    Args:
        live: without classifier, on the CPU, in eval mode.
        folder: holds config and weights.
        size: of the random image that both see, in pixels.

    Raises:
        BackboneError: weights differ by a bit, or features by more than rounding, or timm cannot load it.
    """
    images = torch.rand(1, 3, size, size, generator=fixed_generator())
    try:
        loaded: Any = timm.create_model(f"local-dir:{folder}", pretrained=True)
        loaded.reset_classifier(0)
        with torch.inference_mode():
            wanted, found = live(images), loaded.eval()(images)
    except Exception as error:  # timm raises many kinds
        reason = (str(error) or type(error).__name__).strip().splitlines()[0]
    else:
        state = loaded.state_dict()
        has_weights = all(torch.equal(state[name], tensor) for name, tensor in live.state_dict().items())
        # where tensors lie in memory may change how sums are rounded
        if has_weights and torch.allclose(wanted, found, rtol=1e-3, atol=1e-4 * float(wanted.abs().max())):
            return
        reason = "it computes other features" if has_weights else "it changes the weights"
    raise BackboneError(
        f"timm {timm.__version__} does not load the adapted network from a folder ({reason}): give `out` a name ending "
        "in .safetensors instead, or take another version of timm"
    )
