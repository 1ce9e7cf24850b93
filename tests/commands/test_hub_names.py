"""--arch hf-hub:USER/NAME goes all the way, without a connection, from what is in the hub's cache."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save

import smn_cli
from smn_cli.adapters.adapter import load_adapter
from smn_cli.errors import LeftOutWarning, MismatchError
from tests.adapters.test_partial import adapter_of
from tests.commands.conftest import SHORT
from tests.conftest import CONVNET, RESNET, Cached, Outcome, random_weights, write_images

pytestmark = pytest.mark.slow
Run = Callable[..., Outcome]


def put_network(cache: Cached, repository: str, arch: str, tag: str | None) -> None:
    """A repository as timm pushes it: config and weights."""
    config: dict[str, Any] = {
        "architecture": arch,
        "num_classes": 1000,
        "num_features": 256,
        "pretrained_cfg": {
            **({"tag": tag} if tag else {}),
            "input_size": [3, 160, 160],
            "mean": [0.4, 0.5, 0.6],
            "std": [0.2, 0.3, 0.4],
            "interpolation": "bilinear",
            "classifier": timm.get_pretrained_cfg(arch).classifier,
            "license": "apache-2.0",
        },
    }
    files = {"config.json": json.dumps(config).encode(), "model.safetensors": save(random_weights(arch))}
    cache.put(repository, files)


@pytest.mark.parametrize(
    ("repository", "tag", "recorded"),
    [("timm/test_resnet.r160_in1k", "r160_in1k", "r160_in1k"), ("me/own", None, "hf-hub:me/own")],
)
def test_the_road_from_a_repository_of_the_hub(
    repository: str, tag: str | None, recorded: str, hub_cache: Cached, run_cli: Run, tmp_path: Path
) -> None:
    put_network(hub_cache, repository, RESNET, tag)
    write_images(tmp_path / "images", 24)
    for label, name in enumerate(("red", "green")):
        write_images(tmp_path / "labeled" / name, 8, seed=label, colour=label)
    run, file = tmp_path / "run", tmp_path / "a.safetensors"
    for words in (
        ("adapt", tmp_path / "images", "--arch", f"hf-hub:{repository}", "--out", run, *SHORT.split()),
        ("pack", run, "--out", file),
        ("verify", file),
        ("apply", file, "--out", f"{tmp_path / 'net'}/"),
        ("eval", tmp_path / "labeled", "--adapter", file, "--arch", f"hf-hub:{repository}", "--k", "3"),
    ):
        outcome = run_cli(*words)
        assert outcome.code == 0, outcome.err
    header = load_adapter(file).header
    assert (header.arch, header.tag) == (RESNET, recorded)
    assert header.preprocessing["mean"] == [0.4, 0.5, 0.6]
    page = (tmp_path / "net" / "README.md").read_text()
    assert f"base_model: {repository}\n" in page
    assert "license: apache-2.0\n" in page
    outcome = run_cli("eval", tmp_path / "labeled", "--adapter", file, "--arch", "hf-hub:me/other")
    assert outcome.code == 2
    assert "--arch hf-hub:me/other is not the adapter's" in outcome.err


def test_a_repository_that_cannot_be_had_is_told_in_one_line(hub_cache: Cached, run_cli: Run, tmp_path: Path) -> None:
    write_images(tmp_path / "images", 24)
    outcome = run_cli("adapt", tmp_path / "images", "--arch", "hf-hub:me/none", "--out", tmp_path / "run")
    assert outcome.code == 5
    [line] = [line for line in outcome.err.splitlines() if line.startswith("smn:")]
    assert line.startswith("smn: the pretrained weights of --arch hf-hub:me/none cannot be had (")
    assert not (tmp_path / "run").exists()
    assert list(hub_cache.folder.iterdir()) == []


def test_a_base_that_is_known_by_its_tag_is_loaded_where_a_part_does_not_decode(hub_cache: Cached) -> None:
    put_network(hub_cache, "timm/test_efficientnet.r160_in1k", CONVNET, "r160_in1k")
    whole = timm.create_model("test_efficientnet.r160_in1k", pretrained=True)
    maps = timm.create_model("test_efficientnet.r160_in1k", pretrained=True, features_only=True)
    adapter = adapter_of(whole, codec="context", arch=CONVNET, tag="r160_in1k")
    with pytest.warns(LeftOutWarning):
        adapter.apply(maps)
    state = adapter.rebuild(whole.state_dict())
    assert all(torch.equal(tensor, state[name]) for name, tensor in maps.state_dict().items())
    lost = adapter_of(whole, codec="context", arch=CONVNET, tag="none_such")
    with pytest.raises(MismatchError, match="cannot be decoded, and the pretrained weights of"):
        lost.apply(smn_cli.remove_adapter(maps))


def test_a_model_from_the_hub_is_known_by_its_repository_in_python(hub_cache: Cached) -> None:
    from smn_cli.backbones.loading import wrap_backbone

    put_network(hub_cache, "me/own", RESNET, None)
    backbone = wrap_backbone(timm.create_model("hf-hub:me/own", pretrained=True))
    assert (backbone.arch, backbone.tag, backbone.licence) == (RESNET, "hf-hub:me/own", "apache-2.0")
