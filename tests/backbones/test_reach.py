"""Weights that cannot be had are told before timm goes on trying."""

from typing import Any

import pytest
import timm

from smn_cli.backbones.loading import load_backbone
from smn_cli.backbones.reach import check_weights_in_reach
from smn_cli.errors import BackboneError
from tests.conftest import Cached


@pytest.mark.parametrize(
    ("arch", "repository"),
    [
        ("test_resnet", "timm/test_resnet.r160_in1k"),
        ("test_resnet.r160_in1k", "timm/test_resnet.r160_in1k"),
        ("hf-hub:me/own", "me/own"),
        ("hf-hub:me/own@v1", "me/own"),
    ],
)
def test_timm_is_not_asked_for_what_is_out_of_reach(
    arch: str, repository: str, hub_cache: Cached, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timm, "create_model", _not_called)
    with pytest.raises(BackboneError) as told:
        load_backbone(arch)
    assert str(told.value).startswith(
        f"the pretrained weights of `arch` {arch} cannot be had ({repository} cannot be reached, for HF_HUB_OFFLINE is "
        "set, and model.safetensors is not in the cache): give a local file with `weights`; "
    )


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_weights_in_the_cache_need_no_answer(file: str, hub_cache: Cached) -> None:
    hub_cache.put("timm/test_resnet.r160_in1k", {file: b"weights"})
    hub_cache.put("me/own", {file: b"weights"})
    check_weights_in_reach("test_resnet")
    check_weights_in_reach("hf-hub:me/own")
    with pytest.raises(BackboneError):
        check_weights_in_reach("hf-hub:me/own@v1")


def test_weights_at_an_address_of_their_own_are_timms_to_fetch(
    hub_cache: Cached, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_weights_in_reach("legacy_seresnext26_32x4d")
    check_weights_in_reach("test_resnet.no_such_tag")
    monkeypatch.setenv("TIMM_USE_OLD_CACHE", "1")
    check_weights_in_reach("test_resnet")


def _not_called(*_: Any, **__: Any) -> None:
    raise AssertionError("timm was asked")
