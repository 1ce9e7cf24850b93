"""What `--teacher` takes, and what it refuses."""

import pytest

from smn_cli.config.options import AdaptOptions
from smn_cli.config.teachers import TeacherName, parse_teacher
from smn_cli.errors import UsageError

READ = {
    "stages": TeacherName("stages"),
    "last": TeacherName("last"),
    "resnet50": TeacherName("model", "resnet50"),
    "vit_small_patch14_dinov2.lvd142m@518": TeacherName("model", "vit_small_patch14_dinov2.lvd142m", 518),
    "tf_efficientnet_lite2=w/lite2.pth": TeacherName("model", "tf_efficientnet_lite2", None, "w/lite2.pth"),
    "resnet18@96=w.pth": TeacherName("model", "resnet18", 96, "w.pth"),
    "resnet18=a@b=c.pth": TeacherName("model", "resnet18", None, "a@b=c.pth"),
}


@pytest.mark.parametrize("text", READ)
def test_a_name_is_read_and_written_alike(text: str) -> None:
    assert parse_teacher(text) == READ[text]
    assert parse_teacher(text).text == text


@pytest.mark.parametrize("text", ["", "@224", "=w.pth", "resnet18@", "resnet18@big", "resnet18@0", "resnet18="])
def test_anything_else_is_refused_with_the_option(text: str) -> None:
    with pytest.raises(UsageError, match=r"`teacher` .*expected stages, last, or a timm model"):
        AdaptOptions(teacher=(text,))
