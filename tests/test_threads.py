"""Threads that use torch: each computes alone, and what a server forks has them, too."""

import os
import subprocess
import sys
import threading
import time
from threading import Barrier, BrokenBarrierError, Thread

import pytest
import torch

from smn_cli.threads import lone_threads

FORKING = """
import os, torch
from smn_cli.adapters.fingerprint import tensor_digests
torch.set_num_threads(2)
tensors = {str(number): torch.randn(64, 3, 32, 32).to(memory_format=torch.channels_last) for number in range(8)}
expected = tensor_digests(tensors)
for _ in range(16):
    child = os.fork()
    if not child:
        code = 1
        try:
            code = 0 if tensor_digests(tensors) == expected else 2
        finally:
            os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_each_of_the_threads_computes_alone_and_nobody_else() -> None:
    torch.set_num_threads(2)
    together = Barrier(3)

    def number() -> int:
        together.wait()
        return torch.get_num_threads()

    with lone_threads(3) as pool:
        assert [found.result() for found in [pool.submit(number) for _ in range(3)]] == [1, 1, 1]
    assert torch.get_num_threads() == 2
    later: list[int] = []
    thread = Thread(target=lambda: later.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert later == [2]


def test_nobody_waits_for_a_thread_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(2)
    own, asked = torch.set_num_threads, []

    def fail_once(number: int) -> None:
        asked.append(number)
        if len(asked) == 2:
            raise RuntimeError("Invalid thread pool!")
        own(number)

    monkeypatch.setattr(torch, "set_num_threads", fail_once)
    before = threading.active_count()
    with pytest.raises((RuntimeError, BrokenBarrierError)):
        lone_threads(3)
    deadline = time.monotonic() + 20
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == before
    assert torch.get_num_threads() == 2


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no forked processes")
def test_forked_processes_digest_tensors_in_threads() -> None:
    """Without `torch_threads` seven of ten failed: "Invalid thread pool!"."""
    words = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORKING]  # Python's, of forks beside threads
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["0"] * 16, done.stderr
