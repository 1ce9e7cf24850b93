"""Readouts of real networks' features: what they are fitted to, and networks that they are not of."""

from pathlib import Path

import pytest
import timm
import torch
from torch import nn

from smn_cli.adapters.readout import StoredReadout, store_readout
from smn_cli.backbones.loading import Backbone, wrap_backbone
from smn_cli.backbones.stages import stage_features
from smn_cli.data.preprocessing import Preprocessing
from smn_cli.data.views.loader import image_batches
from smn_cli.errors import DataError, MismatchError
from smn_cli.evaluation.readouts import fit_linear_readout
from smn_cli.features.embed import Embedding
from smn_cli.features.readout import MIN_IMAGES, check_readout, learn_readout, network_for
from smn_cli.schemas.readout_kinds import LINEAR_KINDS, LinearKind
from tests.conftest import CONVNET, RESNET, VIT

PREPROCESSING = Preprocessing(64, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25), "bicubic")


def backbone(arch: str = RESNET) -> Backbone:
    return wrap_backbone(timm.create_model(arch, **({"dynamic_img_size": True} if arch == VIT else {})))


def readout_of(width: int, kind: LinearKind = "whitened") -> StoredReadout:
    return store_readout(fit_linear_readout(torch.randn(32, width), kind), kind, num_images=32)


@pytest.mark.parametrize("kind", LINEAR_KINDS)
def test_it_is_fitted_to_what_the_network_gives_of_the_images(kind: LinearKind, image_folder: Path) -> None:
    model, paths = backbone().model, sorted(image_folder.iterdir())
    seen: list[int] = []
    found = learn_readout(model, paths, kind, Embedding(PREPROCESSING), progress=seen.append)
    images = torch.cat(list(image_batches(paths, PREPROCESSING))).to(memory_format=torch.channels_last)
    with torch.inference_mode():
        features = (stage_features(model) if kind == "stages" else model)(images)
    expected = store_readout(fit_linear_readout(features, kind), kind, num_images=24)
    assert found.entry == expected.entry
    torch.testing.assert_close(found(features), expected(features), rtol=1e-4, atol=1e-4)
    assert seen == [24]


def test_the_same_images_give_the_same_bytes(image_folder: Path) -> None:
    model, paths = backbone(CONVNET).model, sorted(image_folder.iterdir())
    first, second = (learn_readout(model, paths, "stages", Embedding(PREPROCESSING)) for _ in range(2))
    assert first.digest == second.digest


def test_too_few_images_are_refused(image_folder: Path) -> None:
    paths = sorted(image_folder.iterdir())[: MIN_IMAGES - 1]
    with pytest.raises(DataError, match="`readout` centred cannot be learned from 15 images: expected 16 or more"):
        learn_readout(backbone().model, paths, "centred", Embedding(PREPROCESSING))


@pytest.mark.parametrize(("value", "message"), [(float("nan"), "not numbers"), (1e6, "too large")])
def test_features_that_no_file_holds_are_refused(value: float, message: str, image_folder: Path) -> None:
    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.value = nn.Parameter(torch.full((3,), value))

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.value.expand(len(images), 3)

    with pytest.raises(DataError, match=message):
        learn_readout(Flat(), sorted(image_folder.iterdir()), "centred", Embedding(PREPROCESSING))


def test_a_readout_of_another_width_is_refused() -> None:
    base = backbone()
    check_readout(readout_of(base.num_features), base)
    with pytest.raises(MismatchError, match=f"takes 7 features, and {RESNET} has {base.num_features}: leave"):
        check_readout(readout_of(7), base)


@pytest.mark.parametrize("arch", [RESNET, VIT])
def test_one_of_the_stages_is_held_against_the_stages(arch: str) -> None:
    base = backbone(arch)
    width = network_for(base.model, readout_of(9, "stages"))(torch.zeros(1, 3, 64, 64)).shape[1]
    assert width != base.num_features
    check_readout(readout_of(width, "stages"), base)
    with pytest.raises(MismatchError, match=f"takes 9 numbers of its stages, and {arch} has {width}"):
        check_readout(readout_of(9, "stages"), base)


def test_without_a_readout_it_is_the_network_itself() -> None:
    model = backbone().model
    assert network_for(model, None) is model
    assert network_for(model, readout_of(7)) is model
