"""Addresses on the hub are read, and anything else is a path; a file in the cache is found without a connection."""

from pathlib import Path

import pytest

from smn_cli.adapters.adapter import load_adapter
from smn_cli.cascade.schema import is_cascade
from smn_cli.errors import HubError, UsageError
from smn_cli.hub import Address, commit_of, fetch, is_address, local_file, parse_address
from tests.adapters.forging import toy_adapter
from tests.conftest import Cached


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("hf://me/net", Address("me/net")),
        ("me/net", Address("me/net")),
        ("hf://me/net/b.safetensors", Address("me/net", "b.safetensors")),
        ("hf://me/net/sub/b.safetensors@v1", Address("me/net", "sub/b.safetensors", "v1")),
        ("hf://me/net@v1/b.safetensors", Address("me/net", "b.safetensors", "v1")),
        ("hf://me/my.net-2_x@0123abc", Address("me/my.net-2_x", revision="0123abc")),
        (Path("hf://me/net@v1"), Address("me/net", revision="v1")),
    ],
)
def test_an_address_names_repository_file_and_revision(text: str | Path, address: Address) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize(
    "text",
    ["hf://", "hf://me", "hf://me/", "hf:///net", "hf://me/net@", "hf://me/../x", "hf://m e/net", "hf://me/n/../x"],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="expected hf://USER/NAME, hf://USER/NAME/FILE or either with @REVISION"):
        parse_address(text)


@pytest.mark.parametrize("path", ["adapter.safetensors", "hf/me/net", "./hf:x", Path("/tmp/hf:/x"), "me/net"])
def test_other_paths_stay_what_they_are(path: str | Path) -> None:
    assert not is_address(path)
    assert local_file(path) == Path(path)


def test_a_file_in_the_cache_is_found_without_a_connection(hub_cache: Cached) -> None:
    commit = hub_cache.put("me/net", {"adapter.safetensors": toy_adapter().to_bytes()})
    found = fetch(Address("me/net"))
    assert found.read_bytes() == toy_adapter().to_bytes()
    assert commit_of(found) == commit
    assert commit_of(Path("adapter.safetensors")) == ""
    for address in (
        "hf://me/net",
        Path("hf://me/net"),
        f"hf://me/net@{commit}",
        "hf://me/net/adapter.safetensors@main",
    ):
        assert load_adapter(address).header == toy_adapter().header
        assert not is_cascade(address)


def test_what_is_not_in_the_cache_is_told_in_one_line(hub_cache: Cached) -> None:
    hub_cache.put("me/net", {"adapter.safetensors": b"x"})
    for address in ("hf://me/other", "hf://me/net/b.safetensors", "hf://me/net@v2"):
        with pytest.raises(HubError) as caught:
            load_adapter(address)
        repository, file = parse_address(address).repository, parse_address(address).file
        assert str(caught.value) == (
            f"hf://{repository} cannot be reached, for HF_HUB_OFFLINE is set, and {file} is not in the cache: connect, "
            "or give a local file"
        )
        assert caught.value.exit_code == 5
