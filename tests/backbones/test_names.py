"""Weights are found again by what an adapter records of them."""

import pytest

from smn_cli.backbones.names import full_name, is_called, is_hub_name, repository_of, tag_of


@pytest.mark.parametrize(
    ("source", "repository", "tag"),
    [
        ("", "timm/", "a1_in1k"),  # as timm's own configs have it
        ("hf-hub", "timm/resnet50.a1_in1k", "a1_in1k"),
        ("hf-hub", "me/resnet50.a1_in1k", "hf-hub:me/resnet50.a1_in1k"),
        ("hf-hub", "timm/resnet50.a1_in1k@v2", "hf-hub:timm/resnet50.a1_in1k@v2"),
        ("local-dir", "", ""),
    ],
)
def test_the_tag_leads_to_the_weights(source: str, repository: str, tag: str) -> None:
    assert tag_of("resnet50", "a1_in1k", source, repository) == tag


def test_a_network_is_built_by_its_full_name() -> None:
    assert full_name("resnet50", "a1_in1k") == "resnet50.a1_in1k"
    assert full_name("resnet50", "") == "resnet50"
    assert full_name("resnet50", "hf-hub:me/net@v2") == "hf-hub:me/net@v2"
    assert tag_of("resnet50", "", "hf-hub", "me/net") == "hf-hub:me/net"


def test_the_repository_of_weights_is_known_unless_they_came_from_a_file() -> None:
    assert repository_of("resnet50", "a1_in1k") == "timm/resnet50.a1_in1k"
    assert repository_of("resnet50", "hf-hub:me/net") == "me/net"
    assert repository_of("resnet50", "") is None


def test_a_user_s_name_is_held_against_a_network() -> None:
    assert is_hub_name("hf-hub:me/net")
    assert not is_hub_name("resnet50.a1_in1k")
    assert is_called("resnet50", "resnet50", "a1_in1k")
    assert is_called("hf-hub:timm/resnet50.a1_in1k", "resnet50", "a1_in1k")
    assert is_called("hf-hub:me/net", "resnet50", "hf-hub:me/net")
    assert not is_called("hf-hub:me/net", "resnet50", "a1_in1k")
    assert not is_called("resnet18", "resnet50", "a1_in1k")
