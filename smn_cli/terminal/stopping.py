"""Signals that ask a run to save its state and stop."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from smn_cli.training.session import StopSignal


@contextmanager
def saving_on_signals() -> "Iterator[StopSignal]":
    """Ctrl-C and SIGTERM ask the run to save and stop; a second Ctrl-C does not wait."""
    from smn_cli.training.session import StopSignal

    stop = StopSignal()

    def ask(number: int, _frame: object) -> None:
        if stop.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.requested = True

    previous = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
