"""Which number format a run computes in if nobody says."""

from collections.abc import Callable

import pytest
import torch

from smn_cli.cache_folder import cache_folder
from smn_cli.config.options import AdaptOptions
from smn_cli.training import choose_precision as module
from smn_cli.training import resolve_plan as resolve_plan_module
from smn_cli.training.choose_precision import Choice, choose_precision
from smn_cli.training.mask_setup import names_to_train
from smn_cli.training.planning import make_plan
from tests.conftest import CONVNET
from tests.masking.test_backbone import build
from tests.small_runs import Workshop


def chosen(monkeypatch: pytest.MonkeyPatch, *, fp32_s: float, bf16_s: float, has_bf16: bool = True) -> tuple[str, str]:
    """On a processor on which passes take so long; they are taken all the same."""
    whole, took = module._pass_s, {"fp32": fp32_s, "bf16": bf16_s}
    monkeypatch.setattr(module, "_pass_s", lambda *args: whole(*args) * 0 + took[args[-1]])
    monkeypatch.setattr(module, "has_bf16", lambda _device: has_bf16)
    monkeypatch.setattr(module, "LEAST_S", 0.2)
    model = build(CONVNET)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    found = choose_precision(model, 32, names_to_train(model, make_plan(AdaptOptions(size=32), 100)))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    return found


@pytest.mark.parametrize(("bf16_s", "found"), [(0.5, ("bf16", "2.0")), (0.9, ("fp32", "1.1"))])
def test_bf16_where_it_was_measured_to_be_much_faster(
    bf16_s: float, found: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    precision, gain = found
    reason = f"measured here: bf16 is {gain} times as fast as fp32"
    assert chosen(monkeypatch, fp32_s=1.0, bf16_s=bf16_s) == (precision, reason)


def test_what_was_measured_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    first = chosen(monkeypatch, fp32_s=1.0, bf16_s=0.5)
    assert chosen(monkeypatch, fp32_s=1.0, bf16_s=1.0) == first
    for path in (cache_folder() / "precision").iterdir():
        path.write_text("{}")
    assert chosen(monkeypatch, fp32_s=1.0, bf16_s=1.0)[0] == "fp32"


def test_a_run_computes_in_what_was_chosen_its_judge_too(
    workshop: Callable[..., Workshop], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolve_plan_module, "choose_precision", lambda *_, **__: Choice("bf16", "as the test says"))
    session = workshop(CONVNET).start("run", recipe="default", steps=1, local_views=0, queue=None, prototypes=None)
    assert (session.plan.precision, session.plan.reasons["precision"]) == ("bf16", "as the test says")
    images = torch.rand(2, 3, 32, 32)
    assert session.network()(images).dtype == session.context.base()(images).dtype == torch.bfloat16


def test_quick_networks_and_processors_without_it_compute_in_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    assert chosen(monkeypatch, fp32_s=0.1, bf16_s=0.01) == ("fp32", "")
    assert chosen(monkeypatch, fp32_s=1.0, bf16_s=0.1, has_bf16=False) == ("fp32", "")


@pytest.mark.parametrize(("pass_s", "num_passes"), [(0.25, 1 + 2 * 5), (1.0, 1 + 2 * 3), (0.07, 1 + 2 * 12)])
def test_a_quick_network_is_measured_more_often(
    pass_s: float, num_passes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[float] = []

    def taken(*_: object) -> float:
        passes.append(pass_s)
        return pass_s

    monkeypatch.setattr(module, "_pass_s", taken)
    monkeypatch.setattr(module, "LEAST_S", 0.06)
    model = build(CONVNET)
    module._measured(model, 32, names_to_train(model, make_plan(AdaptOptions(size=32), 100)))
    assert len(passes) == num_passes
