"""Parts of a labeled set are nested, of the asked size, and even over the classes if they are to be."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smn_cli.data.labels.label_subsets import draw_fraction

LABELS = st.lists(st.integers(0, 6), min_size=1, max_size=60)
FRACTIONS = st.floats(0.001, 1)


@given(LABELS, FRACTIONS, FRACTIONS, st.integers(0, 9), st.booleans())
def test_a_smaller_fraction_is_the_beginning_of_a_larger_one(
    labels: list[int], one: float, other: float, seed: int, balanced: bool
) -> None:
    small, large = sorted((draw_fraction(labels, f, seed, balanced) for f in (one, other)), key=len)
    assert large[: len(small)] == small
    assert len(set(large)) == len(large)
    assert sorted(draw_fraction(labels, 1.0, seed, balanced)) == list(range(len(labels)))


@given(LABELS, FRACTIONS, st.integers(0, 9))
def test_classes_are_as_even_as_their_sizes_allow_and_none_is_missing(
    labels: list[int], fraction: float, seed: int
) -> None:
    drawn = draw_fraction(labels, fraction, seed)
    there, taken = Counter(labels), Counter(labels[position] for position in drawn)
    assert len(drawn) == max(len(there), round(fraction * len(labels)))
    assert taken.keys() == there.keys()
    most = max(taken.values())
    assert all(count >= min(most - 1, there[label]) for label, count in taken.items())


@given(LABELS, FRACTIONS, st.integers(0, 9))
def test_an_unbalanced_draw_looks_at_no_label(labels: list[int], fraction: float, seed: int) -> None:
    drawn = draw_fraction(labels, fraction, seed, balanced=False)
    assert drawn == draw_fraction([0] * len(labels), fraction, seed, balanced=False)
    assert len(drawn) == max(1, round(fraction * len(labels)))


@pytest.mark.parametrize("balanced", [True, False])
def test_another_seed_draws_other_images(balanced: bool) -> None:
    labels = [position % 4 for position in range(400)]
    draws = [tuple(draw_fraction(labels, 0.1, seed, balanced)) for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]


def test_no_class_is_favoured_by_its_number() -> None:
    labels = [position % 4 for position in range(40)]
    extra = Counter(labels[draw_fraction(labels, 5 / 40, seed)[-1]] for seed in range(80))
    assert min(extra[label] for label in range(4)) > 5


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.1, float("nan")])
def test_what_is_no_fraction_is_refused(fraction: float) -> None:
    with pytest.raises(ValueError, match="above 0 and at most 1"):
        draw_fraction([0, 1], fraction, 0)
