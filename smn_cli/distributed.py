"""Several processes that do one thing's work: train a mask, or embed images. Start them with torchrun.

In training each takes its share of every batch, and all hold the same scores. With the processes' shares of equal size,
the mean of their gradients is the gradient of the whole batch, so that a run differs from one in a single process by
rounding only. Where images are only looked at, each takes whole batches, and the first gets what they give.
"""

import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import torch
from torch import Tensor, distributed

from smn_cli.errors import TrainingError, UsageError
from smn_cli.masking.binarize import in_memory_order

Result = TypeVar("Result")
Key = TypeVar("Key")
Entry = TypeVar("Entry")
Things = TypeVar("Things", Tensor, list[Path], range)

PATIENCE = timedelta(hours=6)
"""How long processes wait for one another; one that dies is noticed at once, and ends the others."""
_LOOK_EVERY_S = 0.02
_BETWEEN_NAMES = " | "


@dataclass(frozen=True)
class Team:
    """The processes of a run; as it stands, one alone, for which nothing here costs anything.

    Attributes:
        rank: this process's number, from 0; the first one writes, judges and talks.
        size: how many there are.
        device: where tensors that are exchanged lie.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = torch.device("cpu")  # noqa: RUF009  # immutable

    @property
    def is_first(self) -> bool:
        """Whether this process writes, judges and talks."""
        return self.rank == 0

    def check_shares(self, batch_size: int, *, num_judging: int) -> None:
        """Refuse work that cannot be shared out: the batch evenly, and a held-out image or more for every process.

        Raises:
            UsageError: the batch is no multiple of the processes, or they are more than the images that judge.
        """
        if batch_size % self.size:
            raise UsageError(f"`batch_size` {batch_size} cannot be shared by {self.size} processes: give a multiple")
        if num_judging < self.size:
            raise UsageError(f"{self.size} processes, but {num_judging} held-out images to judge by: start fewer")

    def average(self, tensors: Iterable[Tensor]) -> None:
        """Replace each tensor by its mean over the processes, in place."""
        if self.size == 1:
            return
        flat = [in_memory_order(tensor, like=tensor) for tensor in tensors]  # dense: a view of the same memory
        waiting = [distributed.all_reduce(tensor, async_op=True) for tensor in flat]
        for work, tensor in zip(waiting, flat, strict=True):
            work.wait()
            tensor.div_(self.size)

    def gathered(self, rows: Tensor) -> Tensor:
        """(B, ...) rows of all processes, each of which has rows rank, rank + size, ... of the whole batch."""
        if self.size == 1:
            return rows
        parts = [torch.empty_like(rows) for _ in range(self.size)]
        distributed.all_gather(parts, rows.contiguous())
        return torch.stack(parts, dim=1).flatten(0, 1)

    def own(self, things: Things) -> Things:
        """This process's share of a sequence or of a tensor's rows."""
        share: Things = things[self.rank :: self.size]
        return share

    def any(self, flag: bool) -> bool:
        """Whether the flag is up in any process."""
        if self.size == 1:
            return flag
        raised = torch.tensor(float(flag), device=self.device)
        distributed.all_reduce(raised, distributed.ReduceOp.MAX)
        return bool(raised)

    def from_first(self, make: Callable[[], Result]) -> Result:
        """What the first process makes of something, given to all."""
        if self.size == 1:
            return make()
        box: list[Any] = [make() if self.is_first else None]
        distributed.broadcast_object_list(box, device=self.device)
        result: Result = box[0]
        return result

    def joined(self, own: Tensor, total: int) -> Tensor:
        """(N, F) rows on the CPU that the processes made one after another of rank, rank + size, ... of N things."""
        if self.size == 1:
            return own
        most = -(-total // self.size)
        padded = own.new_zeros(most, *own.shape[1:])
        padded[: len(own)] = own
        return self.gathered(padded.to(self.device)).cpu()[:total]

    def merged(self, own: dict[Key, Entry]) -> dict[Key, Entry]:
        """The entries of all processes, one process after another."""
        if self.size == 1:
            return own
        parts: list[Any] = [None] * self.size
        distributed.all_gather_object(parts, own)
        return {key: entry for part in parts for key, entry in part.items()}

    def hand_over(self, rows: Tensor) -> None:
        """Give float32 rows (B, F) to the first process, which has to ask for them by `received`."""
        distributed.send(rows.to(self.device).contiguous(), dst=0)

    def received(self, rank: int, shape: tuple[int, int]) -> Tensor:
        """(B, F) float32 rows on the CPU that another process hands over."""
        rows = torch.empty(shape, device=self.device)
        distributed.recv(rows, src=rank)
        return rows.cpu()

    def wait(self) -> None:
        """Go on when all processes are here."""
        if self.size > 1:
            distributed.barrier()


@contextmanager
def told_of_the_others(team: Team) -> Iterator[None]:
    """A block in whose errors a process that died is named as what it is, not in the library's words.

    Raises:
        TrainingError: a connection to another process broke.
    """
    try:
        yield
    except RuntimeError as error:
        if team.size == 1 or isinstance(error, torch.OutOfMemoryError):
            raise
        raise TrainingError(f"process {team.rank} lost the others or failed itself: {error}") from None


def _agreed_word(store: Any, rank: int, size: int) -> str:
    """A word that the first process makes up for this attempt, and all know before any goes on.

    Counters of restarts would not do: a torchrun that was itself killed and started again counts anew. Nor may anybody
    take a dead process's words for those of a living one, so every question has a word of its own.
    """
    own = uuid4().hex
    if rank:
        store.set(f"question of {rank}", own)
        word: str = store.get(f"answer to {own}").decode()
        store.set(f"{word} known to {rank}", "")
        return word
    answered: set[str] = set()
    waiting = set(range(1, size))
    deadline = time.monotonic() + PATIENCE.total_seconds()
    while waiting:
        if time.monotonic() > deadline:
            raise TrainingError(f"{len(waiting)} of {size} processes did not come: look at what they said")
        for other in sorted(waiting):
            if store.check([f"question of {other}"]):
                question = store.get(f"question of {other}").decode()
                if question not in answered:
                    store.set(f"answer to {question}", own)
                    answered.add(question)
            if store.check([f"{own} known to {other}"]):
                waiting.remove(other)
        time.sleep(_LOOK_EVERY_S)
    return own


def launched_size() -> int:
    """How many processes torchrun started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def launch_name() -> str:
    """Of the torchrun that started this process: the same after it has restarted its workers, empty without it."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return ""
    return f"{os.uname().nodename} {os.getppid()} {os.environ['TORCHELASTIC_RUN_ID']}"


def launch_names(team: Team) -> str:
    """Of all torchruns of a team, each on a machine of its own, for `is_of_launch`."""
    return _BETWEEN_NAMES.join(dict.fromkeys(team.merged({team.rank: launch_name()}).values()))


def is_of_launch(names: str) -> bool:
    """Whether the torchrun that started this process is among those of `launch_names`."""
    return launch_name() in names.split(_BETWEEN_NAMES)


def was_restarted() -> bool:
    """Whether torchrun started this process in place of one that died."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


def device_of_process(device: str) -> str:
    """Where this process works: of several GPUs on a machine each process takes its own."""
    if launched_size() > 1 and device.startswith("cuda"):
        return f"cuda:{os.environ['LOCAL_RANK']}"
    return device


@contextmanager
def team_of(device: str) -> Iterator[Team]:
    """The team that torchrun started this process for, while the block lasts.

    Args:
        device: of this process, see `device_of_process`.
    """
    if launched_size() == 1:
        yield Team()
        return
    place = torch.device(device)
    if place.type == "cuda":
        torch.cuda.set_device(place)
    found = distributed.rendezvous("env://", timeout=PATIENCE)  # type: ignore[attr-defined]
    store, rank, size = next(found)
    # some torchruns keep one store over all attempts, in which the addresses of dead processes would be found
    attempt = distributed.PrefixStore(_agreed_word(store, rank, size), store)  # type: ignore[attr-defined]
    backend = "nccl" if place.type == "cuda" else "gloo"
    distributed.init_process_group(backend, store=attempt, rank=rank, world_size=size, timeout=PATIENCE)
    try:
        yield Team(distributed.get_rank(), distributed.get_world_size(), place)
    finally:
        distributed.destroy_process_group()
