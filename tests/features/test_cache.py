"""The store: what comes back is what went in, bit for bit, or nothing."""

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from smn_cli.features.cache import FeatureCache

KEY, OTHER = "a" * 64, "b" * 64


def features(num_images: int = 6) -> Tensor:
    """With numbers that only bits can tell apart."""
    values = torch.randn(num_images, 5, generator=torch.Generator().manual_seed(num_images))
    values[0, 0], values[0, 1] = -0.0, torch.finfo(torch.float32).tiny / 2
    return values


def test_what_was_kept_comes_back_bit_for_bit(tmp_path: Path) -> None:
    FeatureCache(tmp_path).save(KEY, features())
    cache = FeatureCache(tmp_path)
    found = cache.load(KEY, 6)
    assert found is not None
    assert torch.equal(found.view(torch.int32), features().view(torch.int32))
    assert cache.num_found == 6


def test_rows_of_a_larger_tensor_are_kept_alone(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path)
    cache.save(KEY, features().T[1:4].T)
    found = cache.load(KEY, 6)
    assert found is not None
    assert torch.equal(found, features()[:, 1:4])


def test_another_key_or_number_of_images_finds_nothing(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path)
    assert cache.load(KEY, 6) is None
    cache.save(KEY, features())
    assert cache.load(OTHER, 6) is None
    assert cache.load(KEY, 7) is None
    assert cache.num_found == 0


def test_any_damage_is_nothing_there_and_is_mended(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path)
    cache.save(KEY, features())
    [path] = tmp_path.iterdir()
    good = path.read_bytes()
    for position in range(0, len(good), 7):
        path.write_bytes(good[:position] + bytes([good[position] ^ 1]) + good[position + 1 :])
        found = cache.load(KEY, 6)
        assert found is None or torch.equal(found, features()), position
        assert found is not None or not path.exists()
    for length in (0, 7, 8, len(good) // 2, len(good) - 1):
        path.write_bytes(good[:length])
        assert cache.load(KEY, 6) is None, length
    cache.save(KEY, features())
    assert cache.load(KEY, 6) is not None


@pytest.mark.parametrize(
    "header",
    [
        "5",
        '"ab"',
        "null",
        "{}",
        '{"__metadata__": 5, "features": {"shape": [1, 1], "dtype": "F32"}}',
        '{"__metadata__": {}, "features": 5}',
        '{"__metadata__": {}, "features": {"shape": [-1, -1], "dtype": "F32"}}',
        '{"__metadata__": {}, "features": {"shape": ["a", "b"], "dtype": "F32"}}',
        '{"__metadata__": {}, "features": {"shape": [1e30, 0], "dtype": "F32"}}',
    ],
)
def test_a_header_of_any_other_kind_is_nothing_there(header: str, tmp_path: Path) -> None:
    (tmp_path / "key.safetensors").write_bytes(len(header).to_bytes(8, "little") + header.encode())
    assert FeatureCache(tmp_path).load("key", 1) is None
    assert list(tmp_path.iterdir()) == []


def test_an_entry_that_was_renamed_is_not_taken(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path)
    cache.save(KEY, features())
    [path] = tmp_path.iterdir()
    path.rename(path.with_name(path.name.replace(KEY, OTHER)))
    assert cache.load(OTHER, 6) is None


@pytest.mark.parametrize("tensors", [{"features": torch.ones(6)}, {"features": torch.ones(6, 2).bfloat16()}, {}])
def test_other_contents_are_not_taken(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    save_file(tensors, tmp_path / f"{KEY}.safetensors", metadata={"key": KEY})
    assert FeatureCache(tmp_path).load(KEY, 6) is None


def test_the_least_recently_used_go_first(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path)
    keys = [letter * 64 for letter in "abc"]
    for age, key in enumerate(keys):
        cache.save(key, features())
        os.utime(tmp_path / f"{key}.safetensors", (1000 + age, 1000 + age))
    assert cache.load(keys[0], 6) is not None  # used now
    cache.max_bytes = sum(path.stat().st_size for path in tmp_path.iterdir())  # three entries
    cache.save("d" * 64, features())
    left = {path.name[0] for path in tmp_path.iterdir()}
    assert left == {"a", "c", "d"}
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= cache.max_bytes


def test_what_is_larger_than_the_limit_is_not_kept(tmp_path: Path) -> None:
    FeatureCache(tmp_path / "cache", max_bytes=features().nbytes - 1).save(KEY, features())
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_removed_after_a_day(tmp_path: Path) -> None:
    abandoned, recent = tmp_path / ".x.safetensors.1", tmp_path / ".x.safetensors.2"
    abandoned.touch()
    recent.touch()
    os.utime(abandoned, (1000, 1000))
    FeatureCache(tmp_path).save(KEY, features())
    assert (abandoned.exists(), recent.exists()) == (False, True)


def test_a_folder_that_cannot_be_made_keeps_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    cache = FeatureCache(tmp_path / "file" / "cache")
    cache.save(KEY, features())
    assert cache.load(KEY, 6) is None


def test_the_folder_lies_where_caches_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMN_CACHE_HOME", "/own")
    assert FeatureCache().folder == Path("/own/features")
    monkeypatch.setenv("SMN_CACHE_HOME", os.devnull)
    cache = FeatureCache()
    cache.save(KEY, features())
    assert cache.load(KEY, 6) is None
