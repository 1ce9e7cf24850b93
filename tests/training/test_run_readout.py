"""Which images a run's readout is fitted to, and under which network."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from smn_cli.adapters.adapter import adapter_from_bytes
from smn_cli.adapters.readout import store_readout
from smn_cli.data.views.loader import image_batches
from smn_cli.errors import DataError, UsageError
from smn_cli.evaluation.readouts import fit_linear_readout
from smn_cli.features.readout import learn_readout
from smn_cli.runs.pack import pack_run
from smn_cli.runs.run_config import plan_of
from smn_cli.training import run_readout
from smn_cli.training.image_split import split_images
from smn_cli.training.run_readout import check_kind, readout_images, with_readout_of_run
from tests.small_runs import Workshop

Make = Callable[..., Workshop]


def test_it_is_of_the_network_as_the_run_kept_it(workshop: Make) -> None:
    shop = workshop()
    folder = shop.finish("run", steps=3, lr_scores=500.0).folder
    backbone = shop.backbone()
    before = {name: tensor.clone() for name, tensor in backbone.model.state_dict().items()}
    adapter = pack_run(folder, backbone)
    assert adapter.density < 1
    made = with_readout_of_run(adapter, folder, backbone, "whitened")
    batches = torch.cat(list(image_batches(readout_images(folder), adapter.preprocessing)))

    def expected() -> Tensor:
        with torch.inference_mode():
            features = backbone.model(batches.to(memory_format=torch.channels_last))
        return store_readout(fit_linear_readout(features, "whitened"), "whitened", num_images=1).layer()[0]

    assert made.readout is not None
    with adapter.applied(backbone.model):
        torch.testing.assert_close(made.readout.layer()[0], expected(), rtol=1e-3, atol=1e-4)
    assert not torch.allclose(made.readout.layer()[0], expected(), rtol=1e-3, atol=1e-4)  # of the base
    assert all(torch.equal(tensor, before[name]) for name, tensor in backbone.model.state_dict().items())
    again = with_readout_of_run(pack_run(folder, shop.backbone()), folder, shop.backbone(), "whitened")
    assert again.to_bytes() == made.to_bytes() == adapter_from_bytes(made.to_bytes()).to_bytes()
    assert made.with_readout(None).to_bytes() == adapter.to_bytes()


def test_the_threads_are_the_run_s_and_then_those_from_before(workshop: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    shop = workshop()
    folder = shop.finish("run", steps=3).folder
    seen: list[int] = []
    learn = learn_readout

    def look(*args: object, **options: object) -> object:
        seen.append(torch.get_num_threads())
        return learn(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(run_readout, "learn_readout", look)
    torch.set_num_threads(2)
    with_readout_of_run(pack_run(folder, shop.backbone()), folder, shop.backbone(), "centred")
    assert (seen, torch.get_num_threads()) == ([1], 2)


def test_images_held_out_are_left_aside_and_many_are_thinned(workshop: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = workshop().finish("run", steps=3).folder
    images = folder.read_images()
    assert readout_images(folder) == images
    config = folder.read_config()
    config["plan"]["num_holdout"] = 6
    folder.write_config({key: value for key, value in config.items() if key != "schema"})
    plan = plan_of(config, folder)
    held_out = split_images(images, plan).held_out
    assert len(held_out) == 6
    training = [path for path in images if path not in held_out]
    assert readout_images(folder) == training
    monkeypatch.setattr(run_readout, "MAX_FITTED", 7)
    assert readout_images(folder) == training[::3]


def test_an_image_that_is_gone_is_named(workshop: Make) -> None:
    folder = workshop().finish("run", steps=3).folder
    gone = folder.read_images()[4]
    gone.unlink()
    with pytest.raises(DataError, match=rf"{gone} of {folder.path} is gone: a readout is fitted to the run's images"):
        readout_images(folder)


def test_an_unknown_kind_is_refused_with_those_there_are() -> None:
    assert check_kind(None) is None
    assert check_kind("stages") == "stages"
    with pytest.raises(UsageError, match="`readout` raw is unknown: expected one of centred, whitened, stages"):
        check_kind("raw")
