"""Heavy imports made shorter, for commands that are over in seconds."""

import atexit
import gc
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from importlib import import_module
from types import FunctionType, ModuleType
from typing import Any

_LATER = _COMPILER, _COMPILER_UTILS = "torch._dynamo", "torch._dynamo.utils"


@contextmanager
def quick_imports() -> Iterator[None]:
    """Import torch and timm inside in half of the time; nothing is done if torch is there already.

    Garbage collection goes through the growing heap again and again, though almost nothing of what is imported is
    garbage: it is off inside, and leaves alone afterwards what was imported.

    torch's compiler, a thousand modules, is imported by torchvision and timm for two functions that a command without
    a compiler does not call: it is left until one of them is.
    """
    if "torch" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        import_module("torch")
        sys.modules.update({name: _Later(name) for name in _LATER if name not in sys.modules})
        yield
    finally:
        _no_later()
        gc.freeze()
        gc.enable()
        atexit.register(_let_go)


class _Later(ModuleType):
    """Stands for a module of the compiler: whatever is asked of it but those two functions imports the real one."""

    def __getattr__(self, name: str) -> Any:
        if (self.__name__, name) == (_COMPILER, "disable"):
            return _disable
        if (self.__name__, name) == (_COMPILER_UTILS, "is_compile_supported"):
            return lambda *args, **options: _real(_COMPILER_UTILS).is_compile_supported(*args, **options)
        if name.startswith("__") and (self.__name__, name) != (_COMPILER, "__path__"):
            raise AttributeError(name)  # the import system and `inspect` look at all modules
        return getattr(_real(self.__name__), name)


def _disable(fn: Any = None, *args: Any, **options: Any) -> Any:
    """A function to which the compiler's `disable` is applied when it is first called."""
    if not isinstance(fn, FunctionType):
        return _real(_COMPILER).disable(fn, *args, **options)
    real: list[Callable[..., Any]] = []

    @wraps(fn)
    def disabled(*arguments: Any, **named: Any) -> Any:
        if not real:
            real.append(_real(_COMPILER).disable(fn, *args, **options))
        return real[0](*arguments, **named)

    return disabled


def _real(name: str) -> Any:
    _no_later()
    return import_module(name)


def _no_later() -> None:
    for name in _LATER:
        if isinstance(sys.modules.get(name), _Later):
            del sys.modules[name]


def _let_go() -> None:
    """Triton 3.9 lists on stderr what is left at the end. To free all takes a second, so only for its sake."""
    version = re.match(r"(\d+)\.(\d+)", getattr(sys.modules.get("triton"), "__version__", ""))
    if version and (int(version[1]), int(version[2])) >= (3, 9):
        gc.unfreeze()
