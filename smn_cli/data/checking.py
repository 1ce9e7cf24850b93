"""A look at every image before training: which files are bad, and whether they are too many."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from smn_cli.data.reading import BadImageError, read_image
from smn_cli.errors import DataError, first_few


@dataclass
class ImageSet:
    """Images fit for use, and the ones left out with the reason of each."""

    good: list[Path]
    bad: dict[Path, str] = field(default_factory=dict)

    def bad_lines(self) -> list[str]:
        """One line a bad file: path, tab, reason."""
        return [f"{path}\t{reason}" for path, reason in self.bad.items()]


def check_images(
    paths: list[Path], *, max_bad: float, num_threads: int = 2, progress: Callable[[int, int], None] | None = None
) -> ImageSet:
    """Decode every file once and sort the readable from the bad.

    Args:
        paths: files to look at.
        max_bad: largest fraction of bad files that is put up with, 0 to 1.
        num_threads: decoders at work; Pillow frees the interpreter lock while it decodes.
        progress: called with (files looked at, files in all).

    Raises:
        DataError: more than `max_bad` of the files are bad, or all of them.
    """
    images = ImageSet(good=[])
    for number, (path, reason) in enumerate(_reasons(paths, num_threads), 1):
        if reason is None:
            images.good.append(path)
        else:
            images.bad[path] = reason
        if progress is not None:
            progress(number, len(paths))
    if len(images.bad) > max_bad * len(paths) or not images.good:
        examples = first_few([f"{path} ({reason})" for path, reason in images.bad.items()], limit=3)
        what = f"more than --max-bad {max_bad:g} allows" if images.good else "none is left"
        raise DataError(f"{len(images.bad)} of {len(paths)} images are unusable, {what}: {examples}")
    return images


def _reasons(paths: list[Path], num_threads: int) -> Iterator[tuple[Path, str | None]]:
    with ThreadPoolExecutor(num_threads) as pool:
        yield from zip(paths, pool.map(_reason, paths), strict=True)


def _reason(path: Path) -> str | None:
    try:
        read_image(path)
    except BadImageError as error:
        return str(error)
    return None
