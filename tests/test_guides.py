"""What the guides tell to type works: every option exists, and whole pages run over tiny networks."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from shutil import copyfile
from typing import Any

import pytest
import typer.main

import smn_cli.api
from smn_cli.cli import app
from smn_cli.errors import GateError
from tests.conftest import RESNET, Outcome, write_images
from tests.guide_pages import DOCS, blocks_of, commands_in

GUIDES = sorted(path.relative_to(DOCS).as_posix() for path in (DOCS / "guides").glob("*.md"))
PAGES = ["index.md", "usage.md", "onnx.md", *GUIDES]
COMMANDS: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
TINY: dict[str, Any] = {"steps": 3, "batch_size": 8, "size": 32, "teacher_size": 48, "keep": "last"}
"""What pages leave to the defaults, for networks and images of no size."""


@pytest.mark.parametrize("page", PAGES)
def test_commands_and_options_of_the_guides_exist(page: str) -> None:
    commands = [words for block in blocks_of(page) if block.language == "sh" for words in commands_in(block.text)]
    assert commands
    for name, *words in commands:
        command = COMMANDS[name]
        command.make_parser(command.context_class(command)).parse_args(words)


@pytest.fixture
def desk(tmp_path: Path, weights_file: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory as the pages take it for granted, with settings in smn.toml that make all small."""
    copyfile(weights_file(RESNET), tmp_path / "base.safetensors")
    for number, name in enumerate(("images", "steel", "cloth")):
        write_images(tmp_path / name, 24, seed=number, colour=None if name == "images" else number)
    for label, name in enumerate(("red", "green", "blue")):
        write_images(tmp_path / "labeled" / "train" / name, 12, seed=label, colour=label)
        write_images(tmp_path / "labeled" / "test" / name, 6, seed=10 + label, colour=label)
    tiny = [f"{name.replace('_', '-')} = {value!r}" for name, value in TINY.items()]
    (tmp_path / "smn.toml").write_text("\n".join(["[plan]", *tiny, "[adapt]", *tiny]))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(smn_cli.api, "adapt", partial(smn_cli.api.adapt, **TINY))
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize(
    "pages",
    [
        ["index.md"],
        ["guides/first_adapter.md"],
        ["guides/many_adapters.md"],
        ["index.md", "guides/ci_gates.md"],  # which begins with an adapter
        ["api.md"],
    ],
    ids=lambda pages: pages[-1],
)
def test_pages_run_as_they_stand(pages: list[str], desk: Path, run_cli: Callable[..., Outcome]) -> None:
    """But for the network, which is a tiny one of random weights."""
    for page in pages:
        known: dict[str, object] = {}
        for block in blocks_of(page):
            text = block.text.replace("resnet50", RESNET)
            text = text.replace("pretrained=True", 'checkpoint_path="base.safetensors"')
            if block.language == "python":
                exec(compile(text, page, "exec"), known)
            for words in commands_in(text) if block.language == "sh" else []:
                has_base = any(parameter.name == "weights" for parameter in COMMANDS[words[0]].params)
                if has_base and "--quick" not in words:  # which needs none
                    words += ["--weights", "base.safetensors"]
                outcome = run_cli(*words)
                gated = {"--min-gain", "--fail-under"} & {*words}
                assert outcome.code in ({0, GateError.exit_code} if gated else {0}), (words, outcome.err)
                if gated:  # random weights may fail any of them, but each names a score that there is
                    gates = json.loads(Path(words[words.index("--json") + 1]).read_text())["gates"]
                    assert all(gate["value"] is not None for gate in gates)
    made = {path.name for path in desk.glob("*.safetensors")} - {"base.safetensors"}
    assert made >= ({"steel.safetensors", "merged.safetensors"} if "many" in pages[-1] else {"adapter.safetensors"})
