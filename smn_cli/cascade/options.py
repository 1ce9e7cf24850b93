"""What a user may ask of a cascade."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from smn_cli.config.option import check_options, documents_options, option
from smn_cli.recipes import Keep

Clustering = Literal["gmm", "kmeans"]
CombinationKind = Literal["none", "random", "whitened", "blocks", "pca"]
Mode = Literal["conditional", "unconditional"]


@documents_options
@dataclass(frozen=True)
class CascadeOptions:
    """What `smn cascade` was asked for.

    Raises:
        UsageError: an option has a value that cannot be used.
    """

    experts: int = option(5, "Clusters of images, an expert each.", "Method", minimum=1)
    cluster: Clustering = option("gmm", "gmm (Gaussian mixture) or kmeans.", "Method")
    steps: int | None = option(
        None, "Steps of each expert; by default as many as the dispatcher took.", "Method", minimum=1
    )
    combine: CombinationKind = option(
        "whitened", "How features become one: none (side by side), random, whitened, blocks, pca.", "Method"
    )
    dim: int | None = option(
        None, "Width of the combined features, but for none; by default the kind's own.", "Method", minimum=1
    )
    mode: Mode = option("unconditional", "conditional (two networks an image) or unconditional (all).", "Method")
    seed: int = option(
        0,
        "Of clusters, experts and projection.",
        "Run",
        minimum=0,
        below=1 << 32,
        told="0 or more, below 2^32, which a cascade file can hold",
    )
    keep: Keep | None = option(
        None, "Of experts: best (or the dispatcher's mask), or last; by default as the run's.", "Method"
    )
    lr_scores: float | None = option(
        None, "Of experts; by default a quarter of the run's (--recipe paper: the run's).", "Method", minimum=0
    )

    def __post_init__(self) -> None:
        check_options(self)

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary."""
        return asdict(self)
