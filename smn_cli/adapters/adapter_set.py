"""Several named adapters over one network, one of them on it at a time."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import RLock
from types import TracebackType

from torch import nn

from smn_cli.adapters.adapter import Adapter, load_adapter, remove_adapter
from smn_cli.errors import UsageError


class AdapterSet:
    """Named adapters of one base, switched in place on one network.

    Each is decoded once, when it is added; a switch writes its tensors. As a context it takes off whatever is on at the
    end.

        with smn_cli.AdapterSet(model) as adapters:
            adapters.add("steel", "steel.safetensors")
            adapters.add("cloth", "cloth.safetensors")
            with adapters.using("steel"):
                model(images)

    Threads: the methods of one set exclude each other, and `using` keeps the others out until its block ends. So
    threads that run the network inside `using` blocks of one set alone take turns, and each computes with the adapter
    it asked for. A forward pass outside of them may see a network that is half switched; to run at the same time, give
    each thread a network of its own. There should be one set a network.

    Args:
        model: the pretrained network, with or without its classifier.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self._adapters: dict[str, Adapter] = {}
        self._lock = RLock()
        self._last: str | None = None

    def __repr__(self) -> str:
        return f"AdapterSet({self._adapters!r}, active={self.active!r})"

    def __getstate__(self) -> dict[str, object]:
        """Without the lock, which cannot be copied or pickled: a copy has its own."""
        return {name: value for name, value in vars(self).items() if name != "_lock"}

    def __setstate__(self, state: dict[str, object]) -> None:
        vars(self).update(state, _lock=RLock())

    def __enter__(self) -> "AdapterSet":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.off()

    @property
    def names(self) -> tuple[str, ...]:
        """Of the adapters, in the order in which they were added."""
        return tuple(self._adapters)

    @property
    def active(self) -> str | None:
        """Name of the adapter that is on the network now, however it came there; None if it is none of them."""
        on = [name for name, adapter in self._adapters.items() if adapter.is_on(self.model)]
        return self._last if self._last in on else next(iter(on), None)

    def add(self, name: str, adapter: Adapter | str | Path) -> None:
        """Add an adapter, or the adapter of a file, and decode it; the network does not change.

        Raises:
            UsageError: there is one of that name.
            MismatchError: it is for another base.
            AdapterFileError: the file is damaged.
        """
        with self._lock:
            if name in self._adapters:
                raise UsageError(f"`name` {name!r} is taken: choose another, or make a new set")
            adapter = adapter if isinstance(adapter, Adapter) else load_adapter(adapter)
            adapter.tensors_for(self.model)
            self._adapters[name] = adapter

    def use(self, name: str) -> nn.Module:
        """Put an adapter on, in place of the one that is on now; returns the network.

        Raises:
            UsageError: there is none of that name.
            MismatchError: the network is no longer the base.
        """
        with self._lock:
            self._named(name).apply(self.model)
            self._last = name
            return self.model

    @contextmanager
    def using(self, name: str) -> Iterator[nn.Module]:
        """`use` for the length of a `with` block; then what was on before is on again. Blocks may be nested.

        Raises:
            UsageError, MismatchError: as in `use`.
        """
        with self._lock:
            last = self._last
            with self._named(name).applied(self.model):
                self._last = name
                try:
                    yield self.model
                finally:
                    self._last = last

    def off(self) -> nn.Module:
        """Take off whichever adapter is on; returns the network, which is the base again, bit for bit."""
        with self._lock:
            self._last = None
            return remove_adapter(self.model)

    def _named(self, name: str) -> Adapter:
        if name not in self._adapters:
            known = ", ".join(map(repr, self._adapters)) or "none yet"
            raise UsageError(f"`name` {name!r} is not in the set: it has {known}")
        return self._adapters[name]
