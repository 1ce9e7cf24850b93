"""As in tests/training: a workshop per backbone family, one thread."""

from tests.training.conftest import _one_thread, workshop

__all__ = ["_one_thread", "workshop"]
