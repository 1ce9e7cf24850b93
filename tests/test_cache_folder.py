"""One rule for where caches lie."""

import os
import sys
from pathlib import Path

import platformdirs
import pytest

from smn_cli.cache_folder import cache_folder


def test_a_named_place_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    monkeypatch.setenv("SMN_CACHE_HOME", "/own")
    assert cache_folder() == Path("/own")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have other places for caches")
@pytest.mark.parametrize(("wanted", "found"), [("/caches", "/caches/smn"), ("", "/home/somebody/.cache/smn")])
def test_else_it_is_the_systems_place_for_caches(monkeypatch: pytest.MonkeyPatch, wanted: str, found: str) -> None:
    monkeypatch.delenv("SMN_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.setenv("XDG_CACHE_HOME", wanted)
    assert cache_folder() == Path(found)


def test_a_user_without_a_home_has_a_place_that_keeps_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SMN_CACHE_HOME")
    monkeypatch.setattr(platformdirs, "user_cache_path", lambda *_, **__: Path("~/.cache/smn"))
    assert cache_folder() == Path(os.devnull)
