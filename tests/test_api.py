"""The Python API: what is the user's stays as it was, and what the commands find is found."""

import inspect
import json
import logging
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import nn
from torch.nn.utils import parametrizations

import smn_cli
from smn_cli import AdaptOptions, errors
from smn_cli.adapters.adapter import Adapter
from smn_cli.backbones.loading import load_backbone, wrap_backbone
from tests.conftest import CONVNET, RESNET, Outcome

pytestmark = pytest.mark.slow

SHORT = AdaptOptions(
    recipe="paper", steps=4, size=32, batch_size=8, local_views=1, prototypes=8, queue=16, lr_scores=500.0
)
CHECKPOINTED = replace(SHORT, steps=2, norm_stats="frozen", grad_checkpoint=True)
Weights = Callable[[str], Path]


@pytest.fixture
def model(weights_file: Weights) -> nn.Module:
    """A network as a user has it: with its classifier, partly frozen, partly in training mode, with a hook."""
    made: nn.Module = timm.create_model(RESNET, checkpoint_path=str(weights_file(RESNET)))
    made.get_submodule("layer1").eval()
    made.get_submodule("conv1").requires_grad_(False)
    made.get_submodule("layer2").register_forward_hook(lambda *_: None)
    parametrizations.weight_norm(made.get_submodule("fc"))
    return made


def everything(model: nn.Module) -> list[object]:
    """What a user could find changed: objects, values, layouts, flags, modes, hooks."""
    tensors = [
        (name, id(tensor), tensor.requires_grad, tensor.stride(), tensor.device, tensor.grad is None)
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]
    ]
    values = [tensor.numpy().tobytes() for tensor in model.state_dict().values()]
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")
    modules = [
        (name, id(module), module.training, sorted(vars(module)), [list(getattr(module, hook)) for hook in hooks])
        for name, module in model.named_modules()
    ]
    return [tensors, values, modules]


def seen_steps(stop_after: int, error: BaseException) -> Callable[[smn_cli.StepReport], None]:
    def look(report: smn_cli.StepReport) -> None:
        if report.step == stop_after:
            raise error

    return look


def test_a_model_is_as_it_was_after_a_run(model: nn.Module, image_folder: Path) -> None:
    before = everything(model)
    adapter = smn_cli.adapt(model, image_folder, SHORT)
    assert everything(model) == before
    assert adapter.density < 1


@pytest.mark.parametrize("error", [RuntimeError("mine"), KeyboardInterrupt()])
def test_a_model_is_as_it_was_when_a_run_fails(model: nn.Module, image_folder: Path, error: BaseException) -> None:
    before = everything(model)
    with pytest.raises(type(error)):
        smn_cli.adapt(model, image_folder, SHORT, apply=True, norm_stats="adapt", on_step=seen_steps(2, error))
    assert everything(model) == before


def test_a_channels_last_model_stays_so_and_a_plain_one_too(weights_file: Weights, image_folder: Path) -> None:
    for layout in (torch.channels_last, torch.contiguous_format):
        made = timm.create_model(CONVNET, checkpoint_path=str(weights_file(CONVNET))).to(memory_format=layout)
        before = everything(made)
        smn_cli.adapt(made, image_folder, SHORT, steps=1)
        assert everything(made) == before


def test_with_apply_the_mask_is_on_the_model_and_the_classifier_still_there(
    weights_file: Weights, image_folder: Path
) -> None:
    made: nn.Module = timm.create_model(RESNET, checkpoint_path=str(weights_file(RESNET))).eval()
    images = torch.rand(2, 3, 32, 32)
    with torch.inference_mode():
        logits = made(images)
        adapter = smn_cli.adapt(made, image_folder, SHORT, apply=True)
        assert adapter.is_on(made)
        assert made(images).shape == logits.shape == (2, 1000)
        assert not torch.equal(made(images), logits)
        smn_cli.remove_adapter(made)
        assert torch.equal(made(images), logits)


def test_an_adapter_that_is_on_the_model_is_left_out_of_account(weights_file: Weights, image_folder: Path) -> None:
    made: nn.Module = timm.create_model(RESNET, checkpoint_path=str(weights_file(RESNET)))
    first = smn_cli.adapt(made, image_folder, SHORT, apply=True)
    worn = everything(made)
    second = smn_cli.adapt(made, image_folder, SHORT)
    assert second.to_bytes() == first.to_bytes()
    assert everything(made) == worn


def test_a_stopped_run_goes_on_to_the_same_bytes(model: nn.Module, image_folder: Path, tmp_path: Path) -> None:
    whole = smn_cli.adapt(model, image_folder, SHORT, out=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        smn_cli.adapt(model, image_folder, SHORT, out=tmp_path / "run", on_step=seen_steps(2, KeyboardInterrupt()))
    before = everything(model)
    steps: list[int] = []
    resumed = smn_cli.adapt(
        model, out=tmp_path / "run", resume=True, on_step=lambda report: steps.append(report.step), apply=True
    )
    assert steps[-1] == 4
    assert resumed.to_bytes() == whole.to_bytes()
    smn_cli.remove_adapter(model)
    assert everything(model) == before
    again = smn_cli.adapt(model, out=tmp_path / "run", resume=True)  # there is nothing left to do
    assert again.to_bytes() == whole.to_bytes()


def test_labels_that_judge_are_remembered(
    model: nn.Module, image_folder: Path, labeled_folder: Path, tmp_path: Path
) -> None:
    def judged(name: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        return [line["evaluation"] for line in lines if "evaluation" in line]

    stop = seen_steps(1, KeyboardInterrupt())
    smn_cli.adapt(model, image_folder, SHORT, out=tmp_path / "plain")
    smn_cli.adapt(model, image_folder, SHORT, out=tmp_path / "whole", val=labeled_folder)
    with pytest.raises(KeyboardInterrupt):
        smn_cli.adapt(model, image_folder, SHORT, out=tmp_path / "run", val=labeled_folder, on_step=stop)
    smn_cli.adapt(model, out=tmp_path / "run", resume=True)
    assert judged("run") == judged("whole") != judged("plain")


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"images": "x", "out": "run", "resume": True},
        {"resume": True},
        {"out": "run", "resume": True, "steps": 3},
        {"out": "run", "resume": True, "options": AdaptOptions()},
        {"images": "x", "train": "full"},
    ],
)
def test_arguments_that_do_not_go_together_are_refused(model: nn.Module, arguments: dict[str, Any]) -> None:
    with pytest.raises(smn_cli.UsageError, match=r"`resume`|train='full'"):
        smn_cli.adapt(model, **arguments)


@pytest.fixture
def adapter(weights_file: Weights, image_folder: Path, tmp_path: Path) -> Path:
    """File of an adapter over the resnet."""
    made = timm.create_model(RESNET, checkpoint_path=str(weights_file(RESNET)))
    path = tmp_path / "a.safetensors"
    smn_cli.adapt(made, image_folder, SHORT).save(path)
    return path


def test_evaluate_finds_what_the_command_finds(
    model: nn.Module, weights_file: Weights, adapter: Path, labeled_folder: Path, run_cli: Callable[..., Outcome]
) -> None:
    before = everything(model)
    comparison = smn_cli.evaluate(model, labeled_folder, adapter, linear=True, k=(5, 3))
    words = ("--adapter", adapter, "--weights", weights_file(RESNET), "--knn", "--linear", "--k", 5, "--k", 3)
    outcome = run_cli("eval", labeled_folder, *words, "--json", "-")
    assert outcome.code == 0, outcome.err
    told = json.loads(outcome.out)
    found = json.loads(json.dumps(comparison.to_json()))
    assert found == {name: told[name] for name in ("base", "adapted", "gain", "verdict")}
    alone = smn_cli.evaluate(model, labeled_folder, k=(5, 3), linear=True, size=32)
    assert json.loads(json.dumps(alone.base.groups)) == told["base"]
    assert alone.adapted is None
    assert everything(model) == before


def test_embed_finds_what_the_command_finds(
    model: nn.Module,
    weights_file: Weights,
    adapter: Path,
    image_folder: Path,
    tmp_path: Path,
    run_cli: Callable[..., Outcome],
) -> None:
    (image_folder / "broken.png").write_text("no image")
    before = everything(model)
    done: list[int] = []
    features, paths, bad = smn_cli.embed(model, image_folder, adapter, l2=True, max_bad=0.1, progress=done.append)
    words = ("--adapter", adapter, "--weights", weights_file(RESNET), "--l2", "--max-bad", 0.1)
    outcome = run_cli("embed", image_folder, *words, "--out", tmp_path / "f.npy")
    assert outcome.code == 0, outcome.err
    assert features.numpy().tobytes() == np.load(tmp_path / "f.npy").tobytes()
    torch.testing.assert_close(features.norm(dim=1), torch.ones(24))
    assert [str(path) for path in paths] == (tmp_path / "f.paths.txt").read_text().splitlines()
    assert [path.name for path in bad] == ["broken.png"]
    assert done[-1] == len(paths) == 24
    assert everything(model) == before


def test_embed_without_an_adapter_takes_the_model_as_it_is(model: nn.Module, adapter: Path, image_folder: Path) -> None:
    base = smn_cli.embed(model, image_folder, size=32).features
    adapted = smn_cli.embed(model, image_folder, adapter).features
    with smn_cli.load_adapter(adapter).applied(model):
        as_it_is = smn_cli.embed(model, image_folder, size=32).features
        given = smn_cli.embed(model, image_folder, adapter).features
    assert torch.equal(as_it_is, adapted)
    assert torch.equal(given, adapted)
    assert not torch.equal(base, adapted)


def test_what_is_one_for_the_process_is_left_as_it_was(
    model: nn.Module, adapter: Path, image_folder: Path, labeled_folder: Path, tmp_path: Path
) -> None:
    smn_cli.adapt(model, image_folder, CHECKPOINTED, out=tmp_path / "run")
    torch.set_num_threads(1)
    timm.layers.set_reentrant_ckpt(True)
    try:
        before = process_state()
        smn_cli.adapt(model, image_folder, CHECKPOINTED)
        smn_cli.adapt(model, out=tmp_path / "run", resume=True)  # with the two threads that it was started with
        smn_cli.evaluate(model, labeled_folder, adapter)
        smn_cli.embed(model, image_folder, adapter)
        assert process_state() == before
        assert before[:2] == [1, True]
    finally:
        timm.layers.set_reentrant_ckpt(False)


def process_state() -> list[object]:
    numpy_state = np.random.get_state(legacy=False)  # noqa: NPY002
    return [
        torch.get_num_threads(),
        timm.layers.use_reentrant_ckpt(),
        torch.get_rng_state().tolist(),
        random.getstate(),
        str(numpy_state),
        torch.is_grad_enabled(),
        torch.get_default_dtype(),
    ]


def test_loggers_keep_their_levels(weights_file: Weights) -> None:
    loggers = [logging.getLogger(name) for name in ("timm", "huggingface_hub")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.INFO)
        load_backbone(RESNET, weights_file(RESNET))
        with pytest.raises(smn_cli.BackboneError):
            load_backbone("test_resnet.r160_in1k")
        assert [logger.level for logger in loggers] == [logging.INFO, logging.INFO]
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def test_a_wrapped_model_is_left_alone_unless_it_is_owned(model: nn.Module) -> None:
    before = everything(model)
    backbone = wrap_backbone(model)
    assert everything(model) == before
    assert "fc.bias" in backbone.classifier
    owned = wrap_backbone(model, owned=True)
    assert owned.model is model
    assert everything(model) != before


def test_all_that_is_public_is_at_the_top() -> None:
    from smn_cli import api

    kinds = {name for name, kind in vars(errors).items() if inspect.isclass(kind) and issubclass(kind, Exception)}
    assert set(smn_cli.__all__) == kinds | set(api.__all__) | {"__version__"}
    assert all(getattr(smn_cli, name) is getattr(api, name) for name in api.__all__)
    assert smn_cli.Adapter is Adapter
    assert dir(smn_cli) == sorted(smn_cli.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'adpat'"):
        _ = smn_cli.adpat  # type: ignore[attr-defined]


def test_a_readout_is_fitted_carried_used_and_left_out(model: nn.Module, image_folder: Path, tmp_path: Path) -> None:
    before = everything(model)
    adapter = smn_cli.adapt(model, image_folder, SHORT, readout="whitened")
    assert everything(model) == before
    assert adapter.readout is not None
    assert adapter.readout.entry.num_images == 24
    smn_cli.save_adapter(adapter, tmp_path / "a.safetensors")
    vectors = smn_cli.embed(model, image_folder, tmp_path / "a.safetensors").features
    features = smn_cli.embed(model, image_folder, adapter, readout=False).features
    assert torch.equal(adapter.readout(features), vectors)
    assert vectors.shape == (24, adapter.readout.dim)
    scaled = smn_cli.embed(model, image_folder, adapter, l2=True).features
    torch.testing.assert_close(scaled, torch.nn.functional.normalize(vectors, dim=1))
    with pytest.raises(errors.UsageError, match="`readout` raw is unknown"):
        smn_cli.adapt(model, image_folder, SHORT, readout="raw")
