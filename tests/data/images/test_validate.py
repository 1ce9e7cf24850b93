"""Where a run cannot use all images, a seeded draw is looked at, and nothing else of it depends on anything else."""

from pathlib import Path

import pytest
from PIL import Image

from smn_cli.data.images import validate
from smn_cli.data.images.decode import read_image
from smn_cli.data.images.validate import ImageSet, check_images, check_some_images
from smn_cli.errors import DataError
from tests.conftest import write_images


def draw(paths: list[Path], num_wanted: int, *, seed: int = 0, max_bad: float = 1, num_threads: int = 2) -> ImageSet:
    """A draw of which any part may be bad."""
    return check_some_images(paths, num_wanted, seed=seed, max_bad=max_bad, num_threads=num_threads)


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    """Thirty good images and ten bad ones between them."""
    write_images(tmp_path, 30, size=4)
    for number in range(10):
        (tmp_path / f"{number:03d}x.png").write_bytes(b"no image")
    return sorted(tmp_path.iterdir())


def test_a_draw_follows_its_seed_and_keeps_the_order_of_the_paths(paths: list[Path]) -> None:
    first = draw(paths, 12)
    assert first == draw(paths, 12, num_threads=1)
    assert len(first.good) == 12
    assert first.good == sorted(first.good)
    assert first.good != draw(paths, 12, seed=1).good
    assert first.num_found == 40
    assert first.num_usable == 40 - len(first.bad)


def test_images_that_are_not_drawn_are_not_looked_at(paths: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Path] = []

    def note(path: Path) -> Image.Image:
        seen.append(path)
        return read_image(path)

    monkeypatch.setattr(validate, "read_image", note)
    drawn = draw(paths, 12)
    assert sorted(seen) == sorted([*drawn.good, *drawn.bad])
    assert len(seen) == 40 - drawn.num_unseen


def test_bad_images_are_replaced_by_others_until_none_is_left(paths: list[Path]) -> None:
    assert len(draw(paths, 29).good) == 29
    everything = draw(paths, 35)
    assert everything.good == check_images(paths, max_bad=1).good
    assert everything.num_unseen == 0
    assert everything.num_usable == 30


def test_the_limit_of_bad_images_is_one_of_those_looked_at(paths: list[Path]) -> None:
    drawn = draw(paths, 12)
    num_seen = len(drawn.good) + len(drawn.bad)
    assert drawn.bad
    draw(paths, 12, max_bad=len(drawn.bad) / num_seen)
    with pytest.raises(DataError, match=rf"{len(drawn.bad)} of {num_seen} images are unusable, more than `max_bad`"):
        draw(paths, 12, max_bad=len(drawn.bad) / (num_seen + 1))


def test_portions_change_nothing(paths: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    whole = check_images(paths, max_bad=1)
    monkeypatch.setattr(validate, "_PORTION", 7)
    assert check_images(paths, max_bad=1) == whole
