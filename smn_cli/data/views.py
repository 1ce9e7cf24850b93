"""Random views of an image for a training step (multi-crop, arXiv 2006.09882, section 3.2)."""

import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional

from smn_cli.recipes import ViewPlan


class MultiCrop:
    """Draws `num_global` large and `num_local` small views of one image, as uint8 tensors.

    The order of the steps is SwAV's: random resized crop, flip, colour jitter, grey, blur. All randomness comes from
    torch's global generator, which the caller seeds per sample.
    """

    def __init__(self, plan: ViewPlan) -> None:
        self.plan = plan
        self._global = _view(plan, plan.global_size, plan.global_area)
        self._local = _view(plan, plan.local_size, plan.local_area)

    def __call__(self, image: Image.Image) -> tuple[Tensor, Tensor]:
        """RGB image to (num_global, 3, size, size) and (num_local, 3, local_size, local_size), uint8."""
        pixels = functional.pil_to_tensor(image)
        if self.plan.from_centre_square:
            pixels = functional.center_crop(pixels, [min(image.size)])
        large = [self._global(pixels) for _ in range(self.plan.num_global)]
        small = [self._local(pixels) for _ in range(self.plan.num_local)]
        size = self.plan.local_size
        return torch.stack(large), torch.stack(small) if small else torch.empty(0, 3, size, size, dtype=torch.uint8)


def _view(plan: ViewPlan, size: int, area: tuple[float, float]) -> nn.Module:
    brightness, contrast, saturation, hue = plan.jitter
    crop = v2.RandomResizedCrop(
        size, scale=area, ratio=plan.aspect, interpolation=InterpolationMode.BILINEAR, antialias=True
    )
    steps: list[nn.Module] = [crop, v2.RandomHorizontalFlip(plan.flip_probability)]
    if plan.jitter_probability:
        steps.append(v2.RandomApply([v2.ColorJitter(brightness, contrast, saturation, hue)], plan.jitter_probability))
    if plan.grey_probability:
        steps.append(v2.RandomGrayscale(plan.grey_probability))
    if plan.blur_probability:
        # SwAV's deviation of at most 2 px needs 13 taps; small views take fewer
        kernel = max(3, min(13, size // 16 * 2 + 1))
        steps.append(v2.RandomApply([v2.GaussianBlur(kernel, plan.blur_sigma)], plan.blur_probability))
    return nn.Sequential(*steps)
