"""What a user may ask of an evaluation."""

from dataclasses import dataclass
from pathlib import Path

from smn_cli.config.option import check_options, documents_options, option


@documents_options
@dataclass(frozen=True)
class EvalOptions:
    """What `smn eval` was asked for, besides networks and data.

    Raises:
        UsageError: an option has a value that cannot be used.
    """

    max_train: int | None = option(None, "Most training images used.", "Data", minimum=2)
    max_test: int | None = option(None, "Most test images used.", "Data", minimum=1)
    seed: int = option(0, "Of a split made here, and of the limits.", "Data")
    knn: bool = option(False, "Nearest neighbours (the default).", "Scores")
    linear: bool = option(False, "Linear probe.", "Scores")
    linear_c: float | None = option(
        None, "Its C; by default chosen on the training images, for each network.", "Scores", above=0
    )
    k: tuple[int, ...] = option(
        (), "Neighbours; the first is top1. May repeat; 200 and 20 if not given.", "Scores", minimum=1, metavar="N"
    )
    controls: bool = option(True, "Also what needs no training: other readings, the base at its own size.", "Scores")
    label_fraction: str | None = option(
        None, "Score with these parts of the labels, too, such as 1,0.1.", "Scores", metavar="X,Y,..."
    )
    repeats: int = option(5, "Draws of each part of the labels.", "Scores", minimum=1)
    unbalanced: bool = option(False, "Draw them as the paper does: uneven classes, some missing.", "Scores")
    fail_under: tuple[str, ...] = option((), "Exit 3 below it. May repeat.", "Gates", metavar="METRIC=X")
    min_gain: tuple[str, ...] = option((), "Exit 3 if the gain over the base is below it.", "Gates", metavar="METRIC=X")
    plot: Path | None = option(None, "Accuracy against labels as .png or .svg.", "Output", metavar="FILE")
    report: Path | None = option(
        None, "Scores, classes, confusion and changed images as one .html page.", "Output", metavar="FILE"
    )
    summary: Path | None = option(
        None, "In short as Markdown; $GITHUB_STEP_SUMMARY gets it by itself.", "Output", metavar="FILE"
    )
    junit: Path | None = option(None, "The gates as JUnit XML, a test case each.", "Output", metavar="FILE")

    def __post_init__(self) -> None:
        check_options(self)

    @property
    def is_knn(self) -> bool:
        """Whether neighbours are scored, which they are unless only something else is asked for."""
        return self.knn or not self.linear
