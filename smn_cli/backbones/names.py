"""What a network with its pretrained weights is called: timm's name and tag, or a repository on the hub."""

HUB = "hf-hub:"
"""timm's word before a repository; behind it may stand @REVISION."""
_HUB_BEFORE = "hf_hub:"


def is_hub_name(name: str) -> bool:
    """Whether a name is of a repository on the hub, hf-hub:USER/NAME."""
    return name.startswith((HUB, _HUB_BEFORE))


def full_name(arch: str, tag: str) -> str:
    """What timm builds architecture and weights from; of a repository the tag alone is that."""
    if is_hub_name(tag):
        return tag
    return f"{arch}.{tag}" if tag else arch


def tag_of(arch: str, tag: str, source: str, repository: str) -> str:
    """The tag of weights as an adapter records it, by which they are found again.

    Args:
        arch, tag: as timm's config has them.
        source: "hf-hub" or "local-dir" where the name said so; else empty.
        repository: on the hub that they came from.

    Returns:
        timm's own where there is one; hf-hub:USER/NAME of other repositories; empty of a local folder.
    """
    if source == "hf-hub":
        return tag if tag and repository == f"timm/{arch}.{tag}" else f"{HUB}{repository}"
    return "" if source == "local-dir" else tag


def repository_of(arch: str, tag: str) -> str | None:
    """The repository of the weights on the hub; None if they came from a file."""
    if is_hub_name(tag):
        return tag.partition(":")[2]
    return f"timm/{arch}.{tag}" if tag else None


def is_called(name: str, arch: str, tag: str) -> bool:
    """Whether a user's name, with or without a tag, is that of a network; a tag of timm's is not compared."""
    if is_hub_name(name):
        return name.partition(":")[2] == repository_of(arch, tag)
    return name.partition(".")[0] == arch
