"""Tars to test with, and why an image cannot be used."""

import io
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from smn_cli.data.images.decode import BadImageError, read_image


def png(grey: int = 100) -> bytes:
    """A small image of one grey."""
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (grey, grey, grey)).save(buffer, "png")
    return buffer.getvalue()


def member(name: str, **fields: object) -> tarfile.TarInfo:
    """A header; fields override what it says."""
    info = tarfile.TarInfo(name)
    for field, value in fields.items():
        setattr(info, field, value)
    return info


def write_tar(path: Path, entries: dict[str, bytes] | list[tuple[tarfile.TarInfo, bytes]], **options: int) -> Path:
    """A tar of named bytes, or of headers that say what they like."""
    listed = [(member(n), data) for n, data in entries.items()] if isinstance(entries, dict) else entries
    with tarfile.open(path, "w", format=options.get("format", tarfile.PAX_FORMAT)) as tar:
        for info, data in listed:
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def reason(path: Path) -> str:
    """Why smn cannot use an image."""
    with pytest.raises(BadImageError) as error_info:
        read_image(path)
    assert "\n" not in str(error_info.value)
    return str(error_info.value)
