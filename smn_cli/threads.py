"""How many threads torch computes with, for a while."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def computing_with(num_threads: int) -> Iterator[int]:
    """Let torch compute with so many threads inside, and with as many as before afterwards.

    One is best for many short steps, such as copies of a network's tensors: where other processes use the cores, each
    step otherwise waits until its second thread gets one.

    Yields:
        The number before.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        yield before
    finally:
        torch.set_num_threads(before)
