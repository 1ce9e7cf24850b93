"""Parts of a labeled set, so that few labels can be tried: seeded, nested, the classes even or as chance has it."""

import random
from collections.abc import Sequence
from itertools import zip_longest

from smn_cli.evaluation.low_shot import LabelSubsets
from smn_cli.seeding import named_draw


def draw_fraction(labels: Sequence[int], fraction: float, seed: int, balanced: bool = True) -> list[int]:
    """Positions of a part of the labels; a smaller fraction under the same seed is the beginning of a larger one.

    Args:
        labels: of the images, N of them.
        fraction: of N that is drawn, above 0 and at most 1; at least one image.
        seed: of the draw.
        balanced: as many images of each class as the sizes of the classes allow, and one of each at least, even where
            that is more than the fraction. Otherwise the beginning of one permutation of all images, as in the paper:
            classes may be missing.

    Returns:
        Positions in `labels`, each once, in the order of the draw.

    Raises:
        ValueError: the fraction is not in that range.
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"expected a fraction above 0 and at most 1, found {fraction}")
    generator = named_draw(seed, "fraction")
    order = generator.sample(range(len(labels)), len(labels))
    num_drawn = max(1, round(fraction * len(labels)))
    if balanced:
        order = _in_rounds(order, labels, generator)
        num_drawn = max(num_drawn, len(set(labels)))
    return order[:num_drawn]


def draw_subsets(
    labels: Sequence[int], fractions: Sequence[float], *, num_repeats: int, seed: int, balanced: bool = True
) -> list[LabelSubsets]:
    """Parts of the training images at every fraction, as often as asked; in a repeat the parts are nested.

    All of the labels is one part, however often it is drawn.

    Args:
        labels: of the training images.
        fractions: above 0 and at most 1.
        num_repeats: draws, 1 or more.
        seed: of all draws.
        balanced: as in `draw_fraction`.
    """
    subsets = []
    for fraction in fractions:
        # far apart, so that the repeats of one seed are not those of the next
        draws = (draw_fraction(labels, fraction, seed * 1_000_003 + r, balanced) for r in range(num_repeats))
        parts = tuple(tuple(sorted(drawn)) for drawn in draws)
        subsets.append(LabelSubsets(fraction, parts[:1] if len(parts[0]) == len(labels) else parts))
    return subsets


def _in_rounds(order: list[int], labels: Sequence[int], generator: random.Random) -> list[int]:
    """The same positions in rounds that take one image of each class that has any left, the classes shuffled."""
    by_class: dict[int, list[int]] = {label: [] for label in sorted(set(labels))}
    for position in order:
        by_class[labels[position]].append(position)
    rounds: list[int] = []
    for taken in zip_longest(*by_class.values()):
        left = [position for position in taken if position is not None]
        rounds += generator.sample(left, len(left))
    return rounds
