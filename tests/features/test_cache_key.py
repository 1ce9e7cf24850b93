"""The key changes with everything that features depend on, and with nothing else."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from smn_cli.features import cache_key
from smn_cli.features.cache_key import feature_key
from tests.conftest import write_images

CPU = torch.device("cpu")


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Four images that count as settled."""
    write_images(tmp_path / "images", 4)
    monkeypatch.setattr(cache_key, "SETTLED_AFTER_NS", 0)
    return sorted((tmp_path / "images").iterdir())


def key_of(paths: list[Path], **others: Any) -> str | None:
    """Key of images under a network, with changes."""
    arguments: dict[str, Any] = {"network": {"state": "1"}, "how": {"precision": "fp32"}, "device": CPU, **others}
    return feature_key(paths, **arguments)


def test_the_same_has_the_same_key(paths: list[Path]) -> None:
    assert key_of(paths) == key_of(paths) is not None


@pytest.mark.parametrize("other", [{"network": {"state": "2"}}, {"how": {"precision": "bf16"}}])
def test_another_network_or_way_has_another_key(paths: list[Path], other: dict[str, Any]) -> None:
    assert key_of(paths) != key_of(paths, **other)


def rewrite(paths: list[Path]) -> None:
    found = paths[2].stat()
    data = paths[2].read_bytes()
    paths[2].write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    os.utime(paths[2], ns=(found.st_atime_ns, found.st_mtime_ns))  # as a copy that keeps times does


def replace_by_another_file(paths: list[Path]) -> None:
    paths[3].replace(paths[2])


CHANGES: list[Callable[[list[Path]], object]] = [
    rewrite,
    replace_by_another_file,
    lambda paths: os.utime(paths[0], ns=(0, 1)),
    lambda paths: paths.reverse(),
    lambda paths: paths.pop(),
    lambda paths: paths.append(paths[0]),
]


@pytest.mark.parametrize("change", CHANGES)
def test_other_images_have_another_key(paths: list[Path], change: Callable[[list[Path]], object]) -> None:
    before = key_of(paths)
    change(paths)
    after = key_of(paths)
    assert before is not None
    assert after != before


def test_threads_libraries_and_switches_are_in_the_key(paths: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [key_of(paths)]
    torch.set_num_threads(1)
    keys.append(key_of(paths))
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "SSE41")
    keys.append(key_of(paths))
    monkeypatch.setattr(cache_key, "version", lambda name: "0")
    keys.append(key_of(paths))
    monkeypatch.setattr(cache_key, "_code", lambda: "edited")
    keys.append(key_of(paths))
    monkeypatch.setattr(cache_key, "_processor", lambda: ["another"])
    keys.append(key_of(paths))
    assert len({key for key in keys if key is not None}) == 6


def test_doubt_has_no_key(paths: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    assert key_of([*paths, paths[0].with_name("missing.png")]) is None
    os.utime(paths[1], ns=(0, 2**62))  # from the future
    assert key_of(paths) is None
    os.utime(paths[1], ns=(0, 0))
    monkeypatch.setattr(cache_key, "SETTLED_AFTER_NS", 3600 * 10**9)
    assert key_of(paths) is None
