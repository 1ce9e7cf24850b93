"""What a user may ask of a cascade."""

from dataclasses import asdict, dataclass
from typing import Any

from smn_cli.errors import UsageError
from smn_cli.recipes import Keep

_SEEDS = 1 << 32


@dataclass(frozen=True)
class CascadeOptions:
    """What `smn cascade` was asked for.

    Attributes:
        experts: clusters of images, each of which gets an expert.
        cluster: "gmm" or "kmeans".
        steps: of each expert; None for as many as the dispatcher took.
        combine: how features become one, see `smn_cli.cascade.combining.KINDS`.
        dim: width of the combined features; None leaves it to the kind.
        mode: "conditional" or "unconditional".
        seed: of clusters, experts and projection.
        keep: "best" (or the dispatcher's mask, if nothing beat it) or "last"; None for what the dispatcher's run did.
        lr_scores: learning rate of the experts' scores; None for the recipe's part of the dispatcher's
            (`Recipe.expert_lr_share`): the lower, the fewer bits differ.
    """

    experts: int = 5
    cluster: str = "gmm"
    steps: int | None = None
    combine: str = "whitened"
    dim: int | None = None
    mode: str = "unconditional"
    seed: int = 0
    keep: Keep | None = None
    lr_scores: float | None = None

    def __post_init__(self) -> None:
        for name, least in (("experts", 1), ("steps", 1), ("dim", 1), ("seed", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise UsageError(f"--{name} is {value}: expected {least} or more")
        if self.seed >= _SEEDS:
            raise UsageError(f"--seed is {self.seed}: expected less than {_SEEDS}, which a cascade file can hold")
        if self.lr_scores is not None and not 0 <= self.lr_scores < float("inf"):
            raise UsageError(f"--lr-scores is {self.lr_scores}: expected 0 or more, finite")
        if self.keep not in (None, "best", "last"):
            raise UsageError(f"--keep is {self.keep}: expected best or last")

    def check_choices(self, choices: dict[str, tuple[str, ...]]) -> None:
        """Refuse words that are not among the choices of their option.

        Raises:
            UsageError: the first that is not.
        """
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise UsageError(f"--{name} is {getattr(self, name)}: expected one of {', '.join(known)}")

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary."""
        return asdict(self)
