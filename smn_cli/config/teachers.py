"""What `--teacher` names: the network's own stages, its last layer, or a second model."""

from dataclasses import dataclass, replace
from typing import Literal

from smn_cli.errors import UsageError

STAGES: Literal["stages"] = "stages"
LAST: Literal["last"] = "last"


@dataclass(frozen=True)
class TeacherName:
    """One teacher.

    Attributes:
        kind: the backbone's own stages, its own last layer, or another model's last layer.
        arch: timm name of the other model, with or without a tag.
        size: side of its images in pixels; None for the one that it was made for.
        weights: a file for it instead of timm's own weights; empty for those.
    """

    kind: Literal["stages", "last", "model"]
    arch: str = ""
    size: int | None = None
    weights: str = ""

    @property
    def text(self) -> str:
        """As it is written, see `parse_teacher`."""
        if self.kind != "model":
            return self.kind
        return self.arch + (f"@{self.size}" if self.size else "") + (f"={self.weights}" if self.weights else "")

    @property
    def shown(self) -> str:
        """Without the file: where that lies is nobody else's business."""
        return replace(self, weights="").text


def parse_teacher(text: str) -> TeacherName:
    """Read stages, last, or NAME[@SIZE][=FILE].

    Raises:
        UsageError: it is none of these.
    """
    if text in (STAGES, LAST):
        return TeacherName(text)
    named, _, weights = text.partition("=")
    arch, at, size = named.partition("@")
    if not arch or (at and not (size.isdecimal() and int(size) > 0)) or (text.count("=") and not weights):
        raise UsageError(
            f"`teacher` {text}: expected stages, last, or a timm model as NAME[@SIZE][=FILE], such as "
            "vit_small_patch14_dinov2.lvd142m@518"
        )
    return TeacherName("model", arch, int(size) if at else None, weights)
