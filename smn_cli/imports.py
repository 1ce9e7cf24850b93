"""Heavy imports made shorter, for commands that are over in seconds."""

import atexit
import gc
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quick_imports() -> Iterator[None]:
    """Import torch and timm inside in three quarters of the time; nothing is done if torch is there already.

    Garbage collection goes through the growing heap again and again, though almost nothing of what is imported is
    garbage: it is off inside, and leaves alone afterwards what was imported.
    """
    if "torch" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
        atexit.register(_let_go)


def _let_go() -> None:
    """Triton 3.9 lists on stderr what is left at the end. To free all takes a second, so only for its sake."""
    version = re.match(r"(\d+)\.(\d+)", getattr(sys.modules.get("triton"), "__version__", ""))
    if version and (int(version[1]), int(version[2])) >= (3, 9):
        gc.unfreeze()
