"""Features that several processes make, each of its runs of images, and that come together in the first one."""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from smn_cli.data.images.shares import runs_of
from smn_cli.distributed import Team
from smn_cli.features.row_store import fill


class Shares:
    """Who embeds which images of a list.

    Args:
        paths: of N images, the same in all processes.
        batch_size: of the batches, which are those of one process.
        team: the processes.

    Attributes:
        own: this process's images: whole batches, but for the last of all.
    """

    def __init__(self, paths: Sequence[Path], batch_size: int, team: Team) -> None:
        self.batch_size, self.team, self.total = batch_size, team, len(paths)
        self.runs = runs_of(paths, batch_size, team.size)
        self.own = [paths[place] for run in self.runs[team.rank :: team.size] for place in run]

    def in_order(self, own: Iterator[Tensor]) -> Iterator[Tensor]:
        """Features of all images in their order, a batch or a run at a time, in the first process.

        In the others nothing; they make their features and hand them over while this is iterated.

        Args:
            own: (B, F) features of the batches of this process's images, on any device.

        Raises:
            RuntimeError: another process is gone.
        """
        width = 0
        for number, run in enumerate(self.runs):
            rank = number % self.team.size
            if rank == self.team.rank:
                batches = islice(own, -(-len(run) // self.batch_size))
                if not self.team.is_first:
                    self.team.hand_over(torch.cat([batch.float() for batch in batches]))
                    continue
                for batch in batches:
                    width = batch.shape[1]
                    yield batch.float().cpu()
            elif self.team.is_first:
                yield self.team.received(rank, (len(run), width))  # the first run is the first process's

    def joined(
        self,
        own: Iterator[Tensor],
        progress: Callable[[int], None] | None = None,
        room: Callable[[int, int], Tensor] = torch.empty,
    ) -> Tensor:
        """(N, F) on the CPU in the first process, no rows in the others; see `in_order`.

        Args:
            own: as there.
            progress: called with the number of images done.
            room: from N and F to where the rows are put; float32 in memory if it is not given.
        """
        features, num_done = torch.empty(0, 0), 0
        for rows in self.in_order(own):
            if num_done == 0:
                features = room(self.total, rows.shape[1])
            fill(features, num_done, rows)
            num_done += len(rows)
            if progress is not None:
                progress(num_done)
        return features
