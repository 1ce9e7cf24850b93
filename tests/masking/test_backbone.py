"""The masked backbone computes with masked weights and leaves the network beneath as it was."""

import pytest
import timm
import torch
from torch import Tensor, nn

from smn_cli.errors import TrainingError
from smn_cli.masking.backbone import (
    MaskedBackbone,
    TunedBackbone,
    adapting_statistics,
    density,
    normalisation_layers,
    run_backbone,
    running_statistics,
)
from smn_cli.masking.maskable import maskable_names
from tests.conftest import CONVNET, RESNET, VIT, random_weights
from tests.small_runs import digests

ARCHES = (CONVNET, VIT, RESNET)


def build(arch: str) -> nn.Module:
    """A tiny network of seeded random weights, without classifier; a ViT for 32 px images."""
    options = {"img_size": 32} if arch == VIT else {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: nn.Module = timm.create_model(arch, num_classes=0, **options)
    full = random_weights(arch)
    fitting = {k: full[k] for k, v in model.state_dict().items() if k in full and full[k].shape == v.shape}
    model.load_state_dict({**model.state_dict(), **fitting})
    for layer in normalisation_layers(model).values():
        scale = layer.get_parameter("weight")
        if not scale.any():  # timm's ResNets start with silent branches, in which no mask could be seen
            nn.init.constant_(scale, 0.5)
    return model.eval()


def scores_of(model: nn.Module, *, kept: float = 1.0) -> dict[str, Tensor]:
    """Random scores, positive for a fraction `kept`."""
    names = maskable_names(model, include_depthwise=True, include_stem=True)
    return {name: torch.rand_like(model.get_parameter(name)) - (1 - kept) + 1e-3 for name in names}


def pictures(size: int = 32) -> Tensor:
    return torch.randn(4, 3, size, size)


@pytest.mark.parametrize("arch", ARCHES)
def test_an_all_ones_mask_is_the_base_network_bit_for_bit(arch: str) -> None:
    model, images = build(arch), pictures()
    with torch.no_grad():
        expected = model(images)
        masked = MaskedBackbone(model, scores_of(model))
        weights = masked.effective_weights()
        assert density(masked.masks()) == 1.0
        assert all(torch.equal(weights[name], model.get_parameter(name)) for name in weights)
        assert run_backbone(model, images, weights).numpy().tobytes() == expected.numpy().tobytes()


@pytest.mark.parametrize("arch", ARCHES)
def test_the_masked_network_is_the_network_with_masked_weights_written_in(arch: str) -> None:
    model, written, images = build(arch), build(arch), pictures()
    masked = MaskedBackbone(model, scores_of(model, kept=0.7))
    with torch.no_grad():
        base = model(images)
        for name, mask in masked.masks().items():
            scale = torch.tensor(mask.numel() / int(mask.sum()), dtype=torch.float64).sqrt().float()
            weight = written.get_parameter(name)
            weight.copy_(torch.where(mask, weight * scale, torch.zeros(())))
        adapted = run_backbone(model, images, masked.effective_weights())
        assert torch.equal(adapted, written(images))
        assert not torch.equal(adapted, base)


@pytest.mark.parametrize("arch", ARCHES)
def test_forward_and_backward_leave_every_parameter_and_buffer_untouched(arch: str) -> None:
    model = build(arch).train()
    before = digests(model)
    masked = MaskedBackbone(model, scores_of(model, kept=0.8))
    run_backbone(model, pictures(), masked.effective_weights()).square().sum().backward()  # type: ignore[no-untyped-call]
    masked.pass_gradients()
    assert digests(model) == before
    assert all(parameter.grad is None for parameter in model.parameters())
    gradients = [scores.grad for scores in masked.trained.values() if scores.grad is not None]
    assert len(gradients) == len(masked.trained)
    assert all(bool(gradient.any()) for gradient in gradients)


def test_scores_are_the_backbones_own_and_not_the_callers() -> None:
    model = build(CONVNET)
    given = scores_of(model)
    masked = MaskedBackbone(model, given)
    with torch.no_grad():
        for scores in masked.trained.values():
            scores.fill_(-1)
    assert all(bool((scores > 0).all()) for scores in given.values())


def test_the_threshold_moves_the_masks_with_it() -> None:
    model = build(RESNET)
    scores = scores_of(model)
    masks = MaskedBackbone(model, scores, threshold=0.5).masks()
    assert all(torch.equal(mask, scores[name] > 0.5) for name, mask in masks.items())
    assert 0.4 < density(masks) < 0.6


def test_an_empty_mask_is_refused_by_name_among_many() -> None:
    model = build(VIT)
    scores = scores_of(model)
    scores["blocks.3.attn.qkv.weight"].fill_(-0.1)
    with pytest.raises(TrainingError, match=r"of blocks\.3\.attn\.qkv\.weight would be cut"):
        MaskedBackbone(model, scores).effective_weights()


@pytest.mark.parametrize("arch", [CONVNET, RESNET])
def test_adapting_statistics_changes_running_statistics_alone(arch: str) -> None:
    model = build(arch)
    before = digests(model)
    masked = MaskedBackbone(model, scores_of(model, kept=0.8))
    with adapting_statistics(model), torch.no_grad():
        run_backbone(model, pictures(), masked.effective_weights())
    changed = {name for name, digest in digests(model).items() if digest != before[name]}
    # beside the counters of batches, which touch no output
    assert {name for name in changed if not name.endswith("num_batches_tracked")} == running_statistics(model).keys()
    assert not any(module.training for module in model.modules())


def test_adapting_statistics_ends_in_eval_mode_after_an_error() -> None:
    model = build(CONVNET)

    def fail() -> None:
        with adapting_statistics(model):
            assert all(layer.training for layer in normalisation_layers(model).values())
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert not any(module.training for module in model.modules())


def test_running_statistics_follow_the_batch_with_the_layers_momentum() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.BatchNorm2d(4, momentum=0.25))
    masked = MaskedBackbone(model, {"0.weight": torch.ones(4, 3, 1, 1)})
    images = pictures(8)
    with adapting_statistics(model), torch.no_grad():
        run_backbone(model, images, masked.effective_weights())
        batch = model[0](images)
    statistics = running_statistics(model)
    torch.testing.assert_close(statistics["1.running_mean"], 0.25 * batch.mean((0, 2, 3)))
    torch.testing.assert_close(statistics["1.running_var"], 0.75 + 0.25 * batch.var((0, 2, 3)))


def test_running_statistics_are_copies_and_a_vit_has_none() -> None:
    model = build(CONVNET)
    copies = running_statistics(model)
    own = model.state_dict()
    assert all(torch.equal(own[name], tensor) for name, tensor in copies.items())
    assert copies.keys() == {name for name in own if name.endswith(("running_mean", "running_var"))}
    copies["bn1.running_mean"].fill_(9)
    assert not torch.equal(model.state_dict()["bn1.running_mean"], copies["bn1.running_mean"])
    assert running_statistics(build(VIT)) == {}


def test_density_counts_all_tensors_together() -> None:
    masks = {"a": torch.tensor([True, False]), "b": torch.ones(6, dtype=torch.bool)}
    assert density(masks) == 7 / 8
    assert density({}) == 1.0


def test_statistics_stay_frozen_where_adapting_them_is_not_enabled() -> None:
    model = build(CONVNET)
    before = digests(model)
    with adapting_statistics(model, enabled=False), torch.no_grad():
        model(pictures())
    assert digests(model) == before


@pytest.mark.parametrize("arch", ARCHES)
def test_a_tuned_backbone_starts_as_the_base_and_trains_copies_of_its_weights(arch: str) -> None:
    model, images = build(arch), pictures()
    before = digests(model)
    names = maskable_names(model, include_depthwise=True, include_stem=True)
    tuned = TunedBackbone(model, names)
    with torch.no_grad():
        assert torch.equal(run_backbone(model, images, tuned.effective_weights()), model(images))
        for weight in tuned.trained.values():
            weight.mul_(1.5)
        assert not torch.equal(run_backbone(model, images, tuned.effective_weights()), model(images))
    assert list(tuned.trained) == names
    assert tuned.masks() == {}
    assert digests(model) == before


@pytest.mark.parametrize("arch", ARCHES)
def test_the_weights_trained_with_are_those_an_adapter_would_rebuild(arch: str) -> None:
    model = build(arch).to(memory_format=torch.channels_last)
    masked = MaskedBackbone(model, scores_of(model, kept=0.9), threshold=0.1)
    for _ in range(3):
        final, masks = masked.final_weights(), masked.masks()
        for name, weight in masked.effective_weights().items():
            assert weight.detach().numpy().tobytes() == final[name].numpy().tobytes()
            assert weight.stride() == model.get_parameter(name).stride()
        assert masked.density() == density(masks)
        with torch.no_grad():
            for scores in masked.trained.values():
                scores.add_(torch.randn_like(scores) * 0.1)
        num_flips = sum(int((mask != masks[name]).sum()) for name, mask in masked.masks().items())
        assert masked.refresh() == num_flips > 0


def test_final_weights_do_not_change_with_later_scores() -> None:
    model = build(CONVNET)
    masked = MaskedBackbone(model, scores_of(model, kept=0.9))
    name, weight = next(iter(masked.final_weights().items()))
    before = weight.clone()
    with torch.no_grad():
        masked.trained[name].neg_()
    masked.refresh()
    assert torch.equal(weight, before)
    assert not torch.equal(masked.final_weights()[name], before)
