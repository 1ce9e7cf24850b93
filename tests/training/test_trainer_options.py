"""Options that change how a step computes and not what it learns: precision, compilation, checkpointed activations."""

from collections.abc import Callable
from functools import partial

import pytest
import torch

from smn_cli.config.options import AdaptOptions
from smn_cli.errors import TrainingError, UsageError
from smn_cli.training.planning import make_plan
from tests.conftest import CONVNET, RESNET, VIT
from tests.small_runs import Workshop, equal, log_of, masks_of, metrics, scores_of

Make = Callable[..., Workshop]


@pytest.mark.parametrize("arch", [CONVNET, RESNET, VIT])
def test_checkpointed_activations_give_the_same_scores_bit_for_bit(workshop: Make, arch: str) -> None:
    place = workshop(arch)
    plain, checkpointed = place.finish("a", steps=4), place.finish("b", steps=4, grad_checkpoint=True)
    assert equal(scores_of(plain), scores_of(checkpointed))
    assert metrics(plain) == metrics(checkpointed)


def test_checkpointed_activations_are_computed_again_in_the_backward_pass(workshop: Make) -> None:
    place, calls = workshop(RESNET), {}
    for wish in (False, True):
        session = place.start(f"run-{wish}", steps=1, grad_checkpoint=wish)
        seen: list[int] = []
        session.trainer.network.network.get_submodule("layer4.0.conv1").register_forward_hook(
            lambda *_, seen=seen: seen.append(1)
        )
        for _ in session.steps():
            pass
        calls[wish] = len(seen)
    assert calls[True] == calls[False] + 2  # two sizes of views


def test_a_default_run_with_checkpointed_activations_is_judged_as_one_without(workshop: Make) -> None:
    """Its blocks are run in parts, so that no network is cut before one of them."""
    place = workshop(RESNET)
    options = {
        "recipe": "default", "teacher": ("stages",), "size": 160, "steps": 2, "local_views": 0, "prototypes": None,
        "queue": None,
    }  # fmt: skip
    plain, checkpointed = (
        place.finish(name, grad_checkpoint=name == "checkpointed", **options) for name in ("plain", "checkpointed")
    )
    assert plain.plan.mask_only == checkpointed.plan.mask_only == ("late:0.1",)
    assert plain.context.cut is not None
    assert checkpointed.context.cut is None
    assert log_of(plain) == log_of(checkpointed)


def test_adapting_statistics_twice_a_step_is_refused() -> None:
    with pytest.raises(UsageError, match="`grad_checkpoint`"):
        make_plan(AdaptOptions(recipe="paper", grad_checkpoint=True), 1000)


@pytest.mark.parametrize("arch", [RESNET, VIT])
def test_bf16_takes_nearly_the_same_first_step_and_another_path_later(workshop: Make, arch: str) -> None:
    place = workshop(arch)
    exact, rounded = place.finish("a", steps=4), place.finish("b", steps=4, precision="bf16")
    first, second = metrics(exact), metrics(rounded)
    assert second[0]["loss"] == pytest.approx(first[0]["loss"], rel=0.02)
    assert second != first
    assert all(scores.dtype == torch.float32 for scores in scores_of(rounded).values())


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(UsageError, match="`precision` is fp16: expected fp32 or bf16"):
        AdaptOptions(precision="fp16")  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_compiled_network_learns_nearly_the_same_masks(workshop: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    # all of the compiler but the C++ at its end, which takes a minute; benchmarks/speed.py runs that
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    place = workshop(RESNET)
    plain, compiled = place.finish("a", steps=3), place.finish("b", steps=3, compile=True)
    assert metrics(compiled)[0]["loss"] == pytest.approx(metrics(plain)[0]["loss"], rel=1e-4)
    masks, others = masks_of(plain), masks_of(compiled)
    agreeing = sum(int((masks[name] == others[name]).sum()) for name in masks)
    assert agreeing / sum(mask.numel() for mask in masks.values()) > 0.99


def test_a_failure_to_compile_is_told_in_one_line(workshop: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._dynamo.exc import TorchDynamoException

    def fail(*_: object) -> torch.Tensor:
        raise TorchDynamoException("no C++ compiler\nand a long story")

    monkeypatch.setattr(torch, "compile", lambda *_, **__: fail)
    with pytest.raises(TrainingError, match=r"torch.compile failed \(no C\+\+ compiler\): leave `compile` out"):
        workshop().finish("run", steps=1, compile=True)
