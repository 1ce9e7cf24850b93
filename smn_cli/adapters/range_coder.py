"""The range coder of the codecs `context` and `context2` (docs/format.md): 64 bits of state, words of 32.

With the library constriction, where it is installed (the extra `fast`), or in Python: the same words in half as much
time again, model included. The library is imported when a payload is coded, and not before.
"""

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from smn_cli.errors import AdapterFileError

_Chances = npt.NDArray[np.float64]
"""(num_bits,) probabilities of a set bit, times 2^16: integers from 1 to 65535."""
_TOTAL = 1 << 24
_FULL = (1 << 64) - 1
_LEAST = 1 << 32
"""Ranges below it take a word more."""


class Encoder(Protocol):
    """Bits to words."""

    def encode(self, bits: np.ndarray, chances: _Chances) -> None:
        """Append bits, (num_bits,) bool, with the probability of each."""

    def words(self) -> npt.NDArray[np.uint32]:
        """All that stands for the bits so far; nothing may be appended afterwards."""


class Decoder(Protocol):
    """Words to bits."""

    def decode(self, chances: _Chances) -> npt.NDArray[np.bool_]:
        """The next bits, one for each probability.

        Raises:
            AdapterFileError: no writer with these probabilities made these words.
        """

    def is_used_up(self) -> bool:
        """Whether all words were read and stand for the end of the range, as a writer's do."""


def new_encoder() -> Encoder:
    """The fastest there is."""
    library = _constriction()
    return PythonEncoder() if library is None else _LibraryEncoder(library)


def new_decoder(words: npt.NDArray[np.uint32]) -> Decoder:
    """The fastest there is, of these words."""
    library = _constriction()
    return PythonDecoder(words) if library is None else _LibraryDecoder(library, words)


def _constriction() -> Any:
    try:
        import constriction
    except ImportError:  # there are systems that it is not built for
        return None
    return constriction


class _LibraryEncoder:
    def __init__(self, library: Any) -> None:
        self._encoder = library.stream.queue.RangeEncoder()
        self._model = library.stream.model.Bernoulli(perfect=False)

    def encode(self, bits: np.ndarray, chances: _Chances) -> None:
        self._encoder.encode(bits.astype(np.int32), self._model, chances / (1 << 16))

    def words(self) -> npt.NDArray[np.uint32]:
        words: npt.NDArray[np.uint32] = self._encoder.get_compressed()
        return words


class _LibraryDecoder:
    def __init__(self, library: Any, words: npt.NDArray[np.uint32]) -> None:
        self._decoder = library.stream.queue.RangeDecoder(words)
        self._model = library.stream.model.Bernoulli(perfect=False)

    def decode(self, chances: _Chances) -> npt.NDArray[np.bool_]:
        try:
            bits: npt.NDArray[np.int32] = self._decoder.decode(self._model, chances / (1 << 16))
        except (AssertionError, ValueError) as error:
            raise AdapterFileError(f"the mask does not decode over this base: {error}") from None
        return bits.astype(np.bool_)

    def is_used_up(self) -> bool:
        return bool(self._decoder.maybe_exhausted())


class PythonEncoder:
    """Encoder in Python."""

    def __init__(self) -> None:
        self._words: list[int] = []
        self._lower, self._range = 0, _FULL

    def encode(self, bits: np.ndarray, chances: _Chances) -> None:
        """As `Encoder` says."""
        words, lower, width = self._words, self._lower, self._range
        for zero, is_set in zip(_shares_of_zero(chances), bits.tolist(), strict=True):
            if is_set:
                scale = width >> 24
                lower += scale * zero
                width = scale * (_TOTAL - zero)
            else:
                width = (width >> 24) * zero
            if width < _LEAST:
                words.append(lower >> 32)  # with a carry in bit 32, which `words` takes to the word before
                lower = (lower & 0xFFFFFFFF) << 32
                width <<= 32
        self._lower, self._range = lower, width

    def words(self) -> npt.NDArray[np.uint32]:
        """As `Encoder` says."""
        if self._range == _FULL:
            return np.zeros(0, dtype=np.uint32)
        last = (self._lower + _LEAST - 1) >> 32
        words = [*self._words, last]
        for at in range(len(words) - 1, 0, -1):
            words[at - 1] += words[at] >> 32
        is_ambiguous = last == (self._lower + self._range) >> 32
        return np.array([*words, *[0] * is_ambiguous], dtype=np.int64).astype(np.uint32)


class PythonDecoder:
    """Decoder in Python."""

    def __init__(self, words: npt.NDArray[np.uint32]) -> None:
        self._words = np.ascontiguousarray(words, dtype=np.uint32).data  # a list would take ten times the memory
        self._used, self._range = 2, _FULL
        first, second = (*self._words[:2], 0, 0)[:2]
        self._above = first << 32 | second
        """How far the words' number lies above the lower end of the range."""

    def decode(self, chances: _Chances) -> npt.NDArray[np.bool_]:
        """As `Decoder` says."""
        words, used, above, width = self._words, self._used, self._above, self._range
        found = []
        for at, zero in enumerate(_shares_of_zero(chances)):
            scale = width >> 24
            split = scale * zero
            if above < split:
                width = split
            else:
                above -= split
                width = scale * (_TOTAL - zero)
                if above >= width:
                    raise AdapterFileError("the mask does not decode over this base: it leaves the range coder's range")
                found.append(at)
            if width < _LEAST:
                width <<= 32
                above = above << 32 | (words[used] if used < len(words) else 0)
                used += 1
        self._used, self._above, self._range = used, above, width
        bits = np.zeros(len(chances), dtype=np.bool_)
        bits[found] = True
        return bits

    def is_used_up(self) -> bool:
        """As `Decoder` says."""
        return self._used >= len(self._words) and (self._range == _FULL or self._above < (1 << 33) - 1)


def _shares_of_zero(chances: _Chances) -> list[int]:
    """Of 2^24, what an unset bit takes; an int each, since Python's own are quicker than NumPy's in a loop."""
    shares: list[int] = (((((1 << 16) - chances.astype(np.int64)) * (_TOTAL - 2)) >> 16) + 1).tolist()
    return shares
