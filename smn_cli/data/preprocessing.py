"""The one deterministic way from an image file to a backbone's input, recorded in every adapter."""

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torchvision import transforms
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

from smn_cli.data.images.decode import upright_rgb
from smn_cli.schemas.images import PreprocessingJson

MAX_SIZE = 8192
"""Largest side that a file may ask for: larger inputs fit no network, but can exhaust memory."""
_INTERPOLATIONS = {mode.value: mode for mode in InterpolationMode}


@dataclass(frozen=True)
class Preprocessing:
    """Shorter side to `size`, centre crop of `size`, scale to [0, 1], subtract `mean`, divide by `std`.

    Without the 8/7 border of the ImageNet habit: the paper resizes to the crop's own size.
    """

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str = "bicubic"

    def __post_init__(self) -> None:
        if self.interpolation not in _INTERPOLATIONS:
            raise ValueError(f"unknown interpolation {self.interpolation!r}: expected one of {sorted(_INTERPOLATIONS)}")

    def __call__(self, image: Image.Image) -> Tensor:
        """RGB image to a normalised float32 tensor (3, size, size)."""
        return self.normalize(functional.pil_to_tensor(self.crop(image)))

    def crop(self, image: Image.Image) -> Image.Image:
        """RGB image to its centre crop of `size` by `size`, as the network sees it."""
        mode = _INTERPOLATIONS[self.interpolation]
        resized = functional.resize(image, [self.size], interpolation=mode, antialias=True)
        cropped: Image.Image = functional.center_crop(resized, [self.size])
        return cropped

    def normalize(self, pixels: Tensor) -> Tensor:
        """Levels (..., 3, H, W) from 0 to 255, uint8 or float, to normalised float32."""
        # laid out as one of the images is: a broadcast over channels that lie innermost is five times slower
        one = pixels[(0,) * (pixels.ndim - 3)]
        mean, std = (
            torch.empty_like(one, dtype=torch.float32).copy_(one.new_tensor(values, dtype=torch.float32).view(3, 1, 1))
            for values in (self.mean, self.std)
        )
        # float32 first: to divide bytes is four times slower, and gives the same
        levels = torch.div(pixels, 255) if pixels.is_floating_point() else pixels.float().div_(255)
        return levels.sub_(mean).div_(std)

    def transform(self) -> Callable[[Image.Image], Tensor]:
        """The same as a torchvision transform, bit for bit, of an image of any mode as Pillow opens it."""
        mode = _INTERPOLATIONS[self.interpolation]
        steps = [
            upright_rgb,
            transforms.Resize(self.size, interpolation=mode, antialias=True),
            transforms.CenterCrop(self.size),
            transforms.ToTensor(),  # divides by 255, where v2's ToDtype multiplies by a rounded 1 / 255
            transforms.Normalize(self.mean, self.std),
        ]
        composed: Callable[[Image.Image], Tensor] = transforms.Compose(steps)
        return composed

    def to_json(self) -> PreprocessingJson:
        """Plain dictionary, as kept in `config.json` and in the adapter file."""
        return {
            "size": self.size,
            "mean": list(self.mean),
            "std": list(self.std),
            "interpolation": self.interpolation,
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Preprocessing":
        """Inverse of `to_json`.

        Raises:
            KeyError, TypeError, ValueError: a field is missing or unfit.
        """
        mean, std = tuple(map(float, values["mean"])), tuple(map(float, values["std"]))
        if len(mean) != 3 or len(std) != 3 or not all(map(isfinite, mean + std)) or min(std) <= 0:
            raise ValueError(f"expected three means and three positive deviations, found {mean} and {std}")
        size = int(values["size"])
        if not 1 <= size <= MAX_SIZE:
            raise ValueError(f"expected a size of 1 to {MAX_SIZE} pixels, found {size}")
        return cls(size=size, mean=mean, std=std, interpolation=str(values["interpolation"]))
