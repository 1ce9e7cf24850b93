"""JSON of `smn push` and `smn pull`."""

from typing import Annotated, Literal

from typing_extensions import TypedDict


class PushJson(TypedDict):
    """What `smn push` sent."""

    schema: Literal["smn.push/1"]
    repository: Annotated[str, "USER/NAME on the hub"]
    commit: Annotated[str, "address of the commit"]
    files: Annotated[dict[str, int], "bytes by name in the repository"]
    adapted_digest: Annotated[str, "of the rebuilt network, 64 hex characters"]


class PullJson(TypedDict):
    """What `smn pull` fetched."""

    schema: Literal["smn.pull/1"]
    repository: Annotated[str, "USER/NAME on the hub"]
    revision: Annotated[str, "the commit that the file is of; empty if the hub does not tell"]
    file: Annotated[str, "path that it was written to"]
    bytes: Annotated[int, "its size"]
    adapted_digest: Annotated[str, "of the rebuilt network (of a cascade: the dispatcher), 64 hex characters"]
