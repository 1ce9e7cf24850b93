"""Teams of smn processes with what torchrun gives each, forked off a server that holds torch and timm already.

A torchrun spends fifteen processor seconds on imports: its own and those of two processes. Tests whose point is
torchrun itself (one of the processes dies) start it; those of what a team computes need its processes only.
"""

import multiprocessing
import os
import time
from collections.abc import Sequence
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path
from uuid import uuid4

import pytest
from torch import distributed

PRELOADED = [
    "smn_cli.cli", "smn_cli.api", "smn_cli.training.session", "smn_cli.scoring", "smn_cli.embedding",
    "smn_cli.reports.page", "matplotlib.backends.backend_svg", "sklearn.cluster", "sklearn.decomposition", "timm",
]  # fmt: skip
"""What the commands import, all but what only some of them need."""
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
PATIENCE_S = 240


def run_team(words: Sequence[object], log: Path, *, size: int = 2) -> str:
    """An smn command in a team of processes of one thread each, since sums in more may round otherwise.

    Args:
        words: the command and its options.
        log: a file to be made, for what they say.

    Returns:
        What they said.
    """
    # as the agent of a torchrun it keeps the store, in this process, and the others only connect
    store = distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # type: ignore[attr-defined]
    shared = {
        **os.environ, **ONE_THREAD, "WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port), "TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RUN_ID": uuid4().hex,
        "TORCHELASTIC_RESTART_COUNT": "0", "TORCHELASTIC_MAX_RESTARTS": "0", "TORCH_NCCL_ASYNC_ERROR_HANDLING": "1",
    }  # fmt: skip
    log.touch()
    team = [
        _fork(list(map(str, words)), {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}, log)
        for rank in range(size)
    ]
    _wait_for(team, log)
    del store
    return log.read_text()


def _fork(words: list[str], environment: dict[str, str], log: Path) -> BaseProcess:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    with pytest.MonkeyPatch.context() as patch:  # the server reads them with its first import of torch
        for name, value in ONE_THREAD.items():
            patch.setenv(name, value)
        forkserver.ensure_running()
    process = context.Process(target=_work, args=(words, environment, log))
    process.start()
    return process


def _work(words: list[str], environment: dict[str, str], log: Path) -> None:
    """What one of them does."""
    import torch

    from smn_cli.cli import main

    file = os.open(log, os.O_WRONLY | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.environ.clear()
    os.environ.update(environment)
    torch.set_num_threads(1)  # also where the server was there before, for others
    main(words)


def _wait_for(team: list[BaseProcess], log: Path) -> None:
    """Until all have ended well; one that does not ends the others, as torchrun does."""
    deadline = time.monotonic() + PATIENCE_S
    try:
        while any(process.is_alive() for process in team):
            assert not any(process.exitcode for process in team), log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.02)
        assert [process.exitcode for process in team] == [0] * len(team), log.read_text()
    finally:
        for process in team:
            process.kill()
            process.join()
