"""How many threads torch computes with, for a while; and that threads of Python's find any in a forked process."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Barrier, Lock

import torch

_one_by_one = Lock()


def torch_threads(num_threads: int) -> ThreadPoolExecutor:
    """Threads of Python's that use torch, also in a process that was forked from one that has used it.

    Such a process has none of its parent's threads. torch (seen of 2.14) makes its own pool anew when the next thread
    comes to it; of two that come at once the second finds none and fails, "Invalid thread pool!". So one comes alone.
    """
    pool = ThreadPoolExecutor(num_threads)
    pool.submit(torch.get_num_threads).result()
    return pool


def lone_threads(num_threads: int) -> ThreadPoolExecutor:
    """The same, each without helpers of its own, for work beside that of the main thread.

    torch gives every thread as many helpers as the process has, so that two on two cores are four that wait for each
    other in each operation. Only for loading images: a thread of somebody else's that comes to torch in the same moment
    would have no helpers, either.
    """
    pool, ready = ThreadPoolExecutor(num_threads), Barrier(num_threads)

    def settle() -> None:
        try:
            with _one_by_one:
                torch.get_num_threads()  # what a thread asks first gives it what the process has
                torch.set_num_threads(1)
        except BaseException:
            ready.abort()
            raise
        ready.wait()  # else the first thread would settle for all

    before = torch.get_num_threads()
    try:
        for settled in [pool.submit(settle) for _ in range(num_threads)]:
            settled.result()
    except BaseException:
        ready.abort()  # nobody waits for a thread that never comes
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    finally:
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
