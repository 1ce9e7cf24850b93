"""Heavy imports made shorter, for commands that are over in seconds."""

import atexit
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quick_imports() -> Iterator[None]:
    """Import torch and timm inside in three quarters of the time; nothing is done if torch is there already.

    Garbage collection goes through the growing heap again and again, though almost nothing of what is imported is
    garbage: it is off inside, and leaves alone afterwards what was imported, until the interpreter ends.
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
        atexit.register(gc.unfreeze)  # else triton's extension counts it as leaked, on stderr
