"""Settings of the command line's process, made before torch is loaded: how threads wait, how memory is kept."""

import ctypes
import os
import sys
from contextlib import suppress
from typing import IO

from smn_cli.processors import bound_processors, num_processors

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Parameters of glibc's mallopt, which are part of its binary interface (mallopt(3))."""
_KEPT_BLOCK, _KEPT_TOP = 1 << 30, (1 << 31) - 1


class Typed:
    """The command that was typed, for what tells of it; empty where smn is used from Python."""

    command = ""


def settle_process() -> None:
    """Let threads be as many as a quota allows, waiting ones sleep soon, freed memory stay, unless the user says else.

    Nothing of threads and memory is changed in a process that has torch already: there smn is a guest.
    """
    _open_streams()
    if os.environ.get("HF_ENDPOINT") == "":  # as a job's variable that is not set arrives: no address of a hub
        del os.environ["HF_ENDPOINT"]
    if "torch" not in sys.modules:
        _count_threads()
        _wait_briefly()
        _keep_memory()


def stdout_is_closed() -> bool:
    """Whether smn was started without a stdout (`>&-`), so that what is written there is lost."""
    return getattr(sys.stdout, "name", None) == os.devnull


def lead_nowhere(stream: IO[str]) -> None:
    """Let a stream that takes no more lose what is still to be written, without an error, also where Python ends."""
    with suppress(OSError, ValueError):  # what stands in for a stream in a notebook has no number
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def end_streams() -> None:
    """Flush stdout and stderr; what cannot be is lost, where Python would change the exit code to 120."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            lead_nowhere(stream)


def _open_streams() -> None:
    """Streams that smn was started without lead nowhere; else the next file to be opened would take their place."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115


def _count_threads() -> None:
    """As many as a container's quota leaves processors for.

    Of those that the process is bound to torch counts the cores itself, of which there may be half as many as
    processors, so a quota of more than half is left to it.
    """
    if not {"OMP_NUM_THREADS", "MKL_NUM_THREADS"} & os.environ.keys():
        allowed = num_processors()
        if 2 * allowed <= bound_processors():
            os.environ["OMP_NUM_THREADS"] = str(allowed)


def _wait_briefly() -> None:
    """Threads that wait for others spin for some microseconds, then they sleep.

    Spinning as long as OpenMP does by itself, a step beside another process on the same cores was 24 times slower;
    asleep at once it is a fifth slower on a machine of one's own (benchmarks/two_processes.py).
    """
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"} & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = "1000"  # of GNU's OpenMP, which torch has on Linux
        os.environ["KMP_BLOCKTIME"] = "0"  # of Intel's and LLVM's, in milliseconds


def _keep_memory() -> None:
    """glibc keeps blocks of up to 1 GB instead of giving them back after every operation.

    Each activation would be mapped, zeroed by the kernel and unmapped again: a quarter of a step at
    224 px (docs/log.md).
    """
    if any(name.startswith("MALLOC_") for name in os.environ) or "GLIBC_TUNABLES" in os.environ:
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:  # musl has none
        mallopt(_MMAP_THRESHOLD, _KEPT_BLOCK)
        mallopt(_TRIM_THRESHOLD, _KEPT_TOP)
