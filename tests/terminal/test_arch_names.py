"""The shell completes names of architectures, at once from the second time on."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import timm

from smn_cli.terminal.arch_names import complete_arch


def test_names_are_timms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMN_CACHE_HOME", str(tmp_path))
    assert complete_arch("resnet5") == [name for name in timm.list_models() if name.startswith("resnet5")]
    expected = [name for name in timm.list_models() if name.startswith("test_vit")]
    monkeypatch.setattr(timm, "list_models", lambda: pytest.fail("the file was not used"))
    assert complete_arch("test_vit") == expected


def test_the_shell_asks_without_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMN_CACHE_HOME", str(tmp_path))
    complete_arch("")
    code = (
        "import sys\nfrom smn_cli.cli import app\ntry: app(prog_name='smn')\n"
        "except SystemExit: print([name for name in ('torch', 'timm') if name in sys.modules], file=sys.stderr)"
    )
    asked = {"COMP_WORDS": "smn adapt --arch resnet10", "COMP_CWORD": "3", "_SMN_COMPLETE": "complete_bash"}
    environment = {**os.environ, "SMN_CACHE_HOME": str(tmp_path), **asked}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.split() == [name for name in timm.list_models() if name.startswith("resnet10")]
    assert done.stderr == "[]\n"
