"""How many threads torch computes with, for a while; and that threads of Python's find any in a forked process."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Barrier, Lock

import torch


def torch_threads(num_threads: int) -> ThreadPoolExecutor:
    """Threads of Python's that use torch, each without helpers of its own, also in a forked process.

    torch gives every such thread as many helpers as the process has, so that two on two cores are four that wait for
    each other in each operation. A process that was forked from one that had used torch has none of its parent's
    threads. torch (seen of 2.14) makes its own pool anew when the next thread comes to it; of two that come at once the
    second finds none and fails, "Invalid thread pool!". So they come one by one.
    """
    before = torch.get_num_threads()
    pool, ready, one_by_one = ThreadPoolExecutor(num_threads), Barrier(num_threads), Lock()

    def settle() -> None:
        with one_by_one:
            torch.get_num_threads()  # what a thread asks first sets it to what the process has
            torch.set_num_threads(1)
        ready.wait()  # else the first thread would settle for all

    for settled in [pool.submit(settle) for _ in range(num_threads)]:
        settled.result()
    torch.set_num_threads(before)  # what threads that come later begin with
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
