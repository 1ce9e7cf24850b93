"""Images that a judge shows to one network after another, past what all of them compute alike."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

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


class Activations:
    """What a trunk gives for images that it is shown batch by batch, kept if there is room for all that are wanted.

    Args:
        num_images: that are wanted.
        batches: of the first ones, which are there already.
    """

    def __init__(self, num_images: int, batches: Iterable[Tensor] = ()) -> None:
        self.batches = list(batches)
        self._missing = num_images - sum(map(len, self.batches))
        self._is_open = True

    @property
    def are_whole(self) -> bool:
        """Whether those of all images are there."""
        return not self._missing

    def note(self, batch: Tensor) -> None:
        """Keep activations (B, ...) of the next images; no more from the first batch on that has others among them."""
        if self._is_open and not self.batches:
            an_image = batch[0].numel() * batch.element_size()
            self._is_open = self._missing * an_image <= SHARE * free_memory()
        self._is_open = self._is_open and len(batch) <= self._missing
        if self._is_open:
            self.batches.append(batch.cpu())
            self._missing -= len(batch)


class Looks:
    """The same images again and again; what a frozen trunk makes of them is computed once if it fits into memory.

    Features are equal bit for bit, with and without: batches stay what they are.

    Args:
        batches: a new round over prepared images (B, 3, H, W).
        num_images: N, of a round.
        trunk: from images that lie anywhere to the activations (B, ...) that `Candidate.late` takes; None for none.
        known: what it gave for the first of these batches, if they have been shown to it already.
    """

    def __init__(
        self,
        batches: Callable[[], Iterable[Tensor]],
        num_images: int,
        trunk: Network | None = None,
        known: Activations | None = None,
    ) -> None:
        self._batches, self._trunk = batches, trunk
        self._noted = Activations(num_images, () if known is None else known.batches)

    def features(self, candidate: Candidate) -> Tensor:
        """(N, F) float32 on the CPU."""
        if candidate.late is None or self._trunk is None:
            return extract_features(candidate.network, self._batches())
        if self._noted.are_whole:
            return extract_features(candidate.late, self._noted.batches)
        features = extract_features(candidate.late, self._activations(self._trunk))
        if not self._noted.are_whole:
            self._trunk = None
        return features

    def _activations(self, trunk: Network) -> Iterator[Tensor]:
        known = list(self._noted.batches)
        yield from known
        for batch in islice(self._batches(), len(known), None):
            given = trunk(batch)
            self._noted.note(given)
            yield given
