"""How many threads torch computes with, for a while; and that threads of Python's find any in a forked process."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch


def torch_threads(num_threads: int) -> ThreadPoolExecutor:
    """Threads of Python's that use torch, also in a process that was forked from one that has used it.

    Such a process has none of its parent's threads. torch (seen of 2.14) makes its own pool anew when the next thread
    comes to it; of two that come at once the second finds none and fails, "Invalid thread pool!". So one comes alone.
    """
    pool = ThreadPoolExecutor(num_threads)
    pool.submit(torch.get_num_threads).result()
    return pool


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
