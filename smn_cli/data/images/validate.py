"""A look at the images before training: which ones are bad, and whether they are too many."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from smn_cli.data.images.decode import BadImageError, read_image
from smn_cli.data.images.shares import runs_of
from smn_cli.distributed import Team
from smn_cli.errors import DataError, first_few
from smn_cli.seeding import named_draw

_PORTION = 10_000


@dataclass
class ImageSet:
    """Images fit for use, those that are not with the reason of each, and how many were not looked at, or not drawn."""

    good: list[Path]
    bad: dict[Path, str] = field(default_factory=dict)
    num_unseen: int = 0

    @property
    def num_usable(self) -> int:
        """The good ones and all that were not looked at: what a run's settings follow from."""
        return len(self.good) + self.num_unseen

    @property
    def num_found(self) -> int:
        """All there are."""
        return len(self.good) + len(self.bad) + self.num_unseen

    def bad_lines(self) -> list[str]:
        """One line a bad file: path, tab, reason."""
        return [f"{path}\t{reason}" for path, reason in self.bad.items()]


def check_images(
    paths: list[Path],
    *,
    max_bad: float,
    num_threads: int = 2,
    progress: Callable[[int, int], None] | None = None,
    team: Team | None = None,
) -> ImageSet:
    """Decode every file once and sort the readable from the bad.

    Args:
        paths: files to look at.
        max_bad: largest fraction of bad files that is put up with, 0 to 1.
        num_threads: decoders at work; Pillow frees the interpreter lock while it decodes.
        progress: called with (files looked at, files in all).
        team: processes that call this alike; each looks at its runs, and all get what was found.

    Raises:
        DataError: more than `max_bad` of the files are bad, or all of them.
    """
    team = team or Team()
    own = [paths[place] for run in runs_of(paths, 1, team.size)[team.rank :: team.size] for place in run]

    def tick(done: int) -> None:
        if progress is not None:
            progress(len(paths) * done // len(own), len(paths))

    looked_at = ImageSet(good=[])
    _look(looked_at, own, num_threads, tick)
    reasons = team.merged(looked_at.bad)
    bad = {path: reasons[path] for path in paths if path in reasons}
    images = ImageSet([path for path in paths if path not in bad], bad)
    _refuse_too_many(images, max_bad)
    return images


def check_some_images(
    paths: list[Path],
    num_wanted: int,
    *,
    seed: int,
    max_bad: float,
    num_threads: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> ImageSet:
    """The same for a random draw: images are looked at until so many are good, or none is left.

    Args:
        paths: files to draw from.
        num_wanted: good images wanted.
        seed: of the draw.
        max_bad: as in `check_images`, of the files that were looked at.
        num_threads: decoders at work; the draw does not depend on it.
        progress: called with (good files so far, files wanted).

    Returns:
        The good images in the order of `paths`.

    Raises:
        DataError: more than `max_bad` of the files looked at are bad, or all of them.
    """
    order = named_draw(seed, "images").sample(range(len(paths)), len(paths))
    images, num_seen = ImageSet(good=[]), 0

    def tick(_done: int) -> None:
        if progress is not None:
            progress(len(images.good), num_wanted)

    while len(images.good) < num_wanted and num_seen < len(paths):
        drawn = sorted(order[num_seen : num_seen + num_wanted - len(images.good)])
        _look(images, [paths[position] for position in drawn], num_threads, tick)
        num_seen += len(drawn)
    _refuse_too_many(images, max_bad)
    seen = [paths[position] for position in sorted(order[:num_seen])]
    return ImageSet([path for path in seen if path not in images.bad], images.bad, len(paths) - num_seen)


def _look(images: ImageSet, paths: list[Path], num_threads: int, tick: Callable[[int], None]) -> None:
    for number, (path, reason) in enumerate(_reasons(paths, num_threads), 1):
        if reason is None:
            images.good.append(path)
        else:
            images.bad[path] = reason
        tick(number)


def _refuse_too_many(images: ImageSet, max_bad: float) -> None:
    num_seen = len(images.good) + len(images.bad)
    if len(images.bad) > max_bad * num_seen or not images.good:
        examples = first_few([f"{path} ({reason})" for path, reason in images.bad.items()], limit=3)
        what = f"more than `max_bad` {max_bad:g} allows" if images.good else "none is left"
        raise DataError(f"{len(images.bad)} of {num_seen} images are unusable, {what}: {examples}")


def _reasons(paths: list[Path], num_threads: int) -> Iterator[tuple[Path, str | None]]:
    with ThreadPoolExecutor(num_threads) as pool:
        # in portions: a pool takes all it is given at once, and a million tasks are a gigabyte
        for first in range(0, len(paths), _PORTION):
            portion = paths[first : first + _PORTION]
            yield from zip(portion, pool.map(_reason, portion), strict=True)


def _reason(path: Path) -> str | None:
    try:
        read_image(path)
    except BadImageError as error:
        return str(error)
    return None
