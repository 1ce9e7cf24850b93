"""What can be seen of images before a run: copies of one another, or no structure to learn from."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import functional

from smn_cli.evaluation.features import Network
from smn_cli.evaluation.health import effective_rank
from smn_cli.evaluation.view_consistency import resized

CHANCE_LEVEL = 0.01
"""Above this probability of a likeness by chance, images are taken to hold no structure."""

NUM_AT_ONCE = 100
CLEAR_DEVIATIONS = 5
"""So many images tell enough if their standing lies so far, in deviations under chance, above what is asked for."""

MIN_CLASSES, MAX_SURE = 100, 0.40
"""Mean probability of the likeliest class. Of sets whose images are large enough .08, .24 and .38 on three that
gained; of small ones .23, .43 and .64 on three that were harmed, ImageNet's own the last (docs/log.md)."""

LEAST_SIDE_SHARE = 0.8
"""Of the working size, for the shorter side of the images. A classifier is sure of nothing that was enlarged, so its
not being sure says nothing: of CIFAR-10's images, which it should know, .23."""

MIN_STANDING = 0.55
"""Digits stand at .64, photographs above .9; resizing alone ties the halves of noise together a little (.525)."""


@torch.inference_mode()
def learnability_alarms(network: Network, batches: Iterable[Tensor], features: Tensor) -> list[str]:
    """What can be seen before a run: images that are copies of one another, or that hold no structure.

    Structure means that the left half of an image is more alike to its own right half than to others, beyond chance.

    Args:
        network: the one that a run starts from, at the working size.
        batches: prepared images (B, 3, size, size), in all a sample of at least a few dozen.
        features: (N, F) of the same network for the same images.
    """
    rank = effective_rank(features)
    if rank < 3:
        return [
            f"copies: the images are nearly all alike (effective rank {rank:.1f}); add other images, or "
            "set `keep` to last"
        ]
    standing, num_images = _standing(network, batches)
    by_chance = _normal_tail((standing - 0.5) / _deviation(num_images))
    if by_chance > CHANCE_LEVEL or standing < MIN_STANDING:
        return [
            f"no structure: the two halves of an image are no more alike than those of different images "
            f"(standing {standing:.3f} of {num_images} images, chance is .5); are these photographs? "
            "with `keep` last they are trained on all the same"
        ]
    return []


def _standing(network: Network, batches: Iterable[Tensor]) -> tuple[float, int]:
    """That of the halves of images, and of how many: of the first hundred, if those leave no doubt."""
    left: list[Tensor] = []
    right: list[Tensor] = []
    standing, num_images = 0.5, 0
    for part in (part for batch in batches for part in torch.split(batch, NUM_AT_ONCE)):
        for found, half in zip((left, right), part.chunk(2, dim=3), strict=True):
            found.append(network(resized(half, part.shape[-1])).cpu())
        num_images += len(part)
        if num_images > 1:
            standing = own_standing(torch.cat(left), torch.cat(right))
        is_clear = standing - MIN_STANDING > CLEAR_DEVIATIONS * _deviation(num_images)
        if is_clear and num_images >= NUM_AT_ONCE:
            break
    return standing, num_images


def _deviation(num_images: int) -> float:
    """Under chance, of the mean of N numbers that are uniform from 0 to 1."""
    return 1 / math.sqrt(12 * num_images)


def own_standing(left: Tensor, right: Tensor) -> float:
    """Mean share of the other images' right halves (N, F) that are less alike to a left half than its own is."""
    similarities = functional.normalize(left.float(), dim=1) @ functional.normalize(right.float(), dim=1).T
    own = similarities.diagonal()[:, None]
    num_less = (similarities < own).sum(dim=1)
    return float((num_less.double() / (len(left) - 1)).mean())


def _normal_tail(deviations: float) -> float:
    """Probability that a standard normal number lies above."""
    return math.erfc(deviations / math.sqrt(2)) / 2


def how_sure(features: Tensor, weight: Tensor, bias: Tensor) -> float | None:
    """Mean probability of the likeliest class; None with fewer than a hundred classes. As `familiarity_alarms`."""
    if len(weight) < MIN_CLASSES:
        return None
    likeliest = functional.linear(features.float(), weight.float(), bias.float()).softmax(dim=1).amax(dim=1)
    return float(likeliest.mean())


def familiarity_alarms(features: Tensor, weight: Tensor, bias: Tensor) -> list[str]:
    """Images that the backbone's own classifier is sure of, like those of its training: its last layer knows best.

    Args:
        features: (N, F) of the base, for a sample of the images.
        weight, bias: (C, F) and (C,) of the classifier that came with the weights; with fewer than a hundred classes
            it tells nothing.
    """
    sure = how_sure(features, weight, bias)
    if sure is None or sure <= MAX_SURE:
        return []
    return [
        f"familiar images: the backbone's own classifier gives its likeliest class {sure:.2f} in the mean, above "
        f"{MAX_SURE:.2f}; on such images its stages have taught good and bad, and nobody here can tell which: give "
        "another model as `teacher` or as `witness`, or labeled images as `val`; with `keep` last it trains unjudged"
    ]


def enlargement_alarms(short_side: float, size: int) -> list[str]:
    """Images much smaller than the network looks at them, of which its classifier cannot tell whether it knows them.

    Args:
        short_side: of the images, the usual one, in pixels.
        size: of the views.
    """
    if short_side >= LEAST_SIDE_SHARE * size:
        return []
    own = max(64, int(short_side) // 32 * 32)
    return [
        f"small images: their shorter side is {short_side:g} px, the network looks at {size}; of enlarged images its "
        f"stages have taught good and bad, and nobody here can tell which: set `size` {own}, or give another "
        "model as `teacher` or as `witness`, or labeled images as `val`; with `keep` last it trains unjudged"
    ]
