"""The YAML at the head of a README.md, by which the Hugging Face hub files a model."""

from typing import Any

from smn_cli.adapters.stored import StoredAdapter
from smn_cli.backbones.names import repository_of

TAGS = ("image-feature-extraction", "domain-adaptation", "smn")


def front_matter(adapter: StoredAdapter, *, library: str, licence: str = "", **more: Any) -> str:
    """The block between two lines of dashes.

    Args:
        adapter: says the base.
        library: that loads what lies beside the README.
        licence: as the hub calls it; empty if it is not known.
        **more: other fields that the hub knows; None is left out.
    """
    from huggingface_hub import ModelCardData

    data = ModelCardData(
        library_name=library,
        pipeline_tag="image-feature-extraction",
        license=licence or None,
        base_model=repository_of(adapter.header.arch, adapter.header.tag),
        tags=list(TAGS),
        **more,
    )
    return f"---\n{data.to_yaml()}\n---"
