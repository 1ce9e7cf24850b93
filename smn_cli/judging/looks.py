"""Images that a judge shows to one network after another, past what all of them compute alike."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from torch import Tensor

from smn_cli.data.views.memory import free_memory
from smn_cli.evaluation.classifier import LinearClassifier
from smn_cli.evaluation.features import Network, extract_features

SHARE = 1 / 8
"""Of the memory that is free when the first batch has been looked at, for all that is kept."""


@dataclass(frozen=True)
class Candidate:
    """What is judged.

    Attributes:
        network: as it is now, images (B, 3, H, W) that lie anywhere to features (B, F).
        classifier: of a run with labels.
        late: the part of the network behind the frozen trunk that all candidates of a run share, from the trunk's
            activations to features; None if there is no such trunk.
    """

    network: Network
    classifier: LinearClassifier | None = None
    late: Network | None = None


class Looks:
    """The same images again and again; what a frozen trunk makes of them is computed once if it fits into memory.

    Features are equal bit for bit, with and without: batches stay what they are.

    Args:
        batches: a new round over prepared images (B, 3, H, W).
        num_images: N, of a round.
        trunk: from images that lie anywhere to the activations (B, ...) that `Candidate.late` takes; None for none.
    """

    def __init__(self, batches: Callable[[], Iterable[Tensor]], num_images: int, trunk: Network | None = None) -> None:
        self._batches, self._num_images, self._trunk = batches, num_images, trunk
        self._kept: list[Tensor] | None = None

    def features(self, candidate: Candidate) -> Tensor:
        """(N, F) float32 on the CPU."""
        if candidate.late is None or self._trunk is None:
            return extract_features(candidate.network, self._batches())
        if self._kept is not None:
            return extract_features(candidate.late, self._kept)
        kept: list[Tensor] = []
        features = extract_features(candidate.late, self._activations(self._trunk, kept))
        if kept:
            self._kept = kept
        else:
            self._trunk = None
        return features

    def _activations(self, trunk: Network, kept: list[Tensor]) -> Iterator[Tensor]:
        """Of each batch; they are put into `kept` if all have room."""
        fits = True
        for number, batch in enumerate(self._batches()):
            activations = trunk(batch)
            if number == 0:
                an_image = activations[0].numel() * activations.element_size()
                fits = self._num_images * an_image <= SHARE * free_memory()
            if fits:
                kept.append(activations.cpu())
            yield activations
