"""A folder is written whole or not at all, over nothing that it did not write."""

from collections.abc import Callable
from pathlib import Path

import pytest

from smn_cli.backbones.loading import load_backbone
from smn_cli.errors import BackboneError, UsageError
from smn_cli.publishing import folder as folder_module
from smn_cli.publishing.folder import write_folder
from smn_cli.rebuild import rebuild
from tests.conftest import RESNET, Outcome
from tests.publishing.conftest import NATIVE, Written, adapter_over


def test_the_library_too_leaves_other_folders_alone(weights_file: Callable[[str], Path], tmp_path: Path) -> None:
    adapter, backbone = adapter_over(RESNET, weights_file(RESNET), 96), load_backbone(RESNET, weights_file(RESNET))
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"holds other things \(mine\.txt\)"):
        write_folder(tmp_path, rebuild(adapter, backbone), adapter, backbone, file_digest="", overwrite=True)


@pytest.mark.parametrize(
    ("there", "words", "reason"),
    [
        ({"config.json": "{}"}, (), "--out {out} exists: --overwrite replaces it"),
        ({"notes.txt": "mine"}, ("--overwrite",), "--out {out} holds other things (notes.txt): choose another --out"),
        ({".git": "mine"}, (), "--out {out} holds other things (.git): choose another --out"),
    ],
)
def test_what_is_there_is_not_overwritten(
    there: dict[str, str],
    words: tuple[str, ...],
    reason: str,
    written: Callable[[str, int], Written],
    run_cli: Callable[..., Outcome],
    tmp_path: Path,
) -> None:
    made, out = written(RESNET, NATIVE), tmp_path / "net"
    out.mkdir()
    for name, text in there.items():
        (out / name).write_text(text)
    outcome = run_cli("apply", made.file, "--weights", made.weights, "--out", out, *words)
    assert (outcome.code, outcome.err) == (2, f"smn: {reason.format(out=out)}\n")
    assert {path.name: path.read_text() for path in out.iterdir()} == there


def test_overwrite_replaces_a_folder_and_an_empty_one_is_taken(
    written: Callable[[str, int], Written], run_cli: Callable[..., Outcome], tmp_path: Path
) -> None:
    made, out = written(RESNET, NATIVE), tmp_path / "net"
    out.mkdir()
    words = ("apply", made.file, "--weights", made.weights, "--out", out)
    assert run_cli(*words).code == 0  # without a / at its end: it is a folder
    (out / "config.json").write_text("{}")
    assert run_cli(*words, "--overwrite").code == 0
    assert (out / "config.json").read_bytes() == (made.path / "config.json").read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["net"]


@pytest.mark.parametrize("is_there", [False, True])
def test_a_write_that_fails_leaves_what_was_there(
    is_there: bool,
    written: Callable[[str, int], Written],
    run_cli: Callable[..., Outcome],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made, out = written(RESNET, NATIVE), tmp_path / "net"
    if is_there:
        out.mkdir()
        (out / "config.json").write_text("old")

    def fail(*_: object, **__: object) -> None:
        raise BackboneError("no such luck")

    monkeypatch.setattr(folder_module, "check_loaded", fail)
    words = ("apply", made.file, "--weights", made.weights, "--overwrite", "--out", f"{out}/")
    outcome = run_cli(*words)
    assert (outcome.code, outcome.err) == (5, "smn: no such luck\n")
    assert [path.name for path in tmp_path.iterdir()] == ["net"] * is_there
    assert not is_there or [path.read_text() for path in out.iterdir()] == ["old"]


def test_a_folder_above_that_is_missing_is_told(
    written: Callable[[str, int], Written], run_cli: Callable[..., Outcome], tmp_path: Path
) -> None:
    outcome = run_cli("apply", written(RESNET, NATIVE).file, "--out", f"{tmp_path}/none/net/")
    assert outcome.code == 2
    assert f"--out {tmp_path}/none/net: the folder {tmp_path}/none does not exist" in outcome.err
