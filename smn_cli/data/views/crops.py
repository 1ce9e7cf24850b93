"""Random views of images for a training step (multi-crop, arXiv 2006.09882, section 3.2): cut and resized.

What happens to their colours comes later, for all views at once: see `augmenting`.
"""

from collections.abc import Sequence
from math import ceil, sqrt
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from smn_cli.data.images.decode import BadImageError, read_image
from smn_cli.data.views.boxes import draw_places, fit_boxes
from smn_cli.data.views.pixel_cache import PixelCache
from smn_cli.errors import DataError
from smn_cli.recipes import ViewPlan


class ViewCutter:
    """Cuts the views of a plan out of image files.

    An image is decoded once, reduced as far as the plan's views allow, cached or not, so that the pixels never depend
    on the cache.

    Args:
        paths: the images that positions refer to.
        plan: how many views there are, and how large.
        cache: keeps decoded images while there is room; None reads every file every time.
    """

    def __init__(self, paths: Sequence[Path], plan: ViewPlan, cache: PixelCache | None = None) -> None:
        self.paths = paths
        self.plan = plan
        self.cache = cache
        self._least_side = least_side(plan)

    def draw(self, num_images: int, generator: np.random.Generator) -> np.ndarray:
        """(num_images, num_global + num_local, ...) draws for `cut`."""
        return draw_places(num_images, self.plan.num_global + self.plan.num_local, generator)

    def cut(self, positions: Sequence[int], places: np.ndarray) -> tuple[Tensor, Tensor]:
        """Views of the images at these positions, by draws (B, V, ...) of their own.

        Returns:
            uint8 (B, num_global, size, size, 3) and (B, num_local, local_size, local_size, 3).

        Raises:
            DataError: an image cannot be read; the message names it.
        """
        plan = self.plan
        images = [self.pixels(position) for position in positions]
        sides = np.array([(image.shape[1], image.shape[0]) for image in images])
        split = plan.num_global
        large = fit_boxes(places[:, :split], sides, plan.global_area, plan.aspect)
        small = fit_boxes(places[:, split:], sides, plan.local_area, plan.aspect)
        return _resized(images, large, plan.global_size), _resized(images, small, plan.local_size)

    def pixels(self, position: int) -> np.ndarray:
        """(H, W, 3) uint8 of an image, as they are kept, and as its views are cut from them.

        Raises:
            DataError: it cannot be read.
        """
        known = None if self.cache is None else self.cache.get(position)
        if known is not None:
            return known
        image = read_again(self.paths[position], least_side=self._least_side)
        pixels = np.asarray(image)
        if self.plan.from_centre_square:
            pixels = _centre_square(pixels)
        if self.cache is not None:
            self.cache.put(position, pixels)
            known = self.cache.get(position)
        return (
            pixels.copy() if known is None else known
        )  # Pillow's pixels are not to be written to: torch warns of that


def least_side(plan: ViewPlan) -> int:
    """Pixels of an image's shorter side below which its smallest views would have to be enlarged."""
    sides = [plan.global_size / sqrt(plan.global_area[0])]
    if plan.num_local:
        sides.append(plan.local_size / sqrt(plan.local_area[0]))
    return ceil(max(sides))


def read_again(path: Path, *, least_side: int | None = None) -> Image.Image:
    """An image that was readable when it was found; see `read_image`.

    Raises:
        DataError: it no longer is; the message names it.
    """
    try:
        return read_image(path, least_side=least_side)
    except BadImageError as error:
        raise DataError(f"{path} can no longer be read ({error}): did it change since it was found?") from None


def _resized(images: list[np.ndarray], boxes: np.ndarray, size: int) -> Tensor:
    """(B, V, size, size, 3) from boxes (B, V, 4)."""
    views = []
    for image, of_image in zip(images, boxes.tolist(), strict=True):
        for top, left, height, width in of_image:
            # a batch of one first, then channels moved: the other way round torch takes it for planes, and gives planes
            box = torch.from_numpy(image[top : top + height, left : left + width])[None].permute(0, 3, 1, 2)
            views.append(interpolate(box, size=(size, size), mode="bilinear", antialias=True))
    if not views:
        return torch.empty(*boxes.shape[:2], size, size, 3, dtype=torch.uint8)
    return torch.cat(views).permute(0, 2, 3, 1).contiguous().view(*boxes.shape[:2], size, size, 3)


def _centre_square(pixels: np.ndarray) -> np.ndarray:
    height, width = pixels.shape[:2]
    side = min(height, width)
    # rounded as torchvision's centre crop is
    top, left = round((height - side) / 2), round((width - side) / 2)
    return np.ascontiguousarray(pixels[top : top + side, left : left + side])
