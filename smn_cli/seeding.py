"""Which generator serves what. Nothing else in smn makes one.

Each stream follows from a seed and from what is named beside it, never from what was drawn before: a run that resumes,
loads with more workers or shares its batch out draws the same. Changing a stream changes what a seed means.

| function | serves | follows from |
|---|---|---|
| `split_generator` | which images are held out, and which train | the run's seed |
| `epoch_generator` | the order of the images in an epoch | seed, epoch |
| `step_generator` | places of the views, colours and flips | seed, step (or batch of views that are kept), purpose |
| `initial_weights` | the first weights of a SwAV head and of a classifier | seed |
| `torch_streams_kept` | nothing: leaves torch's own generators as they were | nothing |
| `sample_generator` | the images that prototypes are found on | seed |
| `sklearn_seed` | scikit-learn's k-means, Gaussian mixture, PCA | seed |
| `weight_stream` | random scores, random parts of a tensor; the same on every machine | seed, tensor's name |
| `named_draw` | splits and limits by class, images that are looked at or drawn to train, label fractions | seed, name |
| `resampling_generator` | the bootstrap of an interval | its own seed, 0 |
| `fixed_generator` | made images and features for checks and timings | nothing |

The random signs of a cascade's projection come from SHAKE-256, as `docs/format.md` says, and from no generator.
"""

import hashlib
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import numpy as np
import torch

FIXED_SEED = 0
"""Of what no user's seed changes: maps in a report, checks, timings."""

Purpose = Literal["places", "changes"]
_PURPOSES: tuple[Purpose, ...] = ("places", "changes")


def split_generator(seed: int) -> torch.Generator:
    """For the order of a run's images, whose beginning is held out."""
    return torch.Generator().manual_seed(seed)


def epoch_generator(seed: int, epoch: int) -> torch.Generator:
    """For the order of the images in one epoch."""
    # an odd multiplier keeps (seed, epoch) pairs apart for any realistic number of epochs
    return torch.Generator().manual_seed((seed * 1_000_003 + epoch) % 2**63)


def step_generator(seed: int, step: int, purpose: Purpose) -> np.random.Generator:
    """For one of the things that are drawn for a step's whole batch."""
    return np.random.default_rng([seed, step, _PURPOSES.index(purpose)])


@contextmanager
def initial_weights(seed: int) -> Iterator[None]:
    """Modules that are made inside get their first weights from the seed; torch's own generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


@contextmanager
def torch_streams_kept(devices: Sequence[torch.device]) -> Iterator[None]:
    """Torch's own generators, of the CPU and of these CUDA devices, are afterwards where they were."""
    with torch.random.fork_rng(devices=list(devices)):
        yield


def sample_generator(seed: int) -> torch.Generator:
    """For the sample of images that prototypes are found on."""
    return torch.Generator().manual_seed(seed)


def sklearn_seed(seed: int) -> int:
    """A seed that scikit-learn takes: below 2^32."""
    return seed % 2**32


def weight_stream(seed: int, name: str) -> np.random.Philox:
    """Raw 64-bit numbers of a counter-based generator, for one tensor of a network."""
    key = hashlib.sha256(f"{seed} {name}".encode()).digest()[:16]
    return np.random.Philox(key=int.from_bytes(key, "little"))


def named_draw(seed: int, name: str) -> random.Random:
    """For draws among files and labels, one stream a name: a class, or what is drawn."""
    return random.Random(f"{seed} {name}")


def resampling_generator(seed: int) -> np.random.Generator:
    """For the resamples of a bootstrap."""
    return np.random.default_rng(seed)


def fixed_generator() -> torch.Generator:
    """The same stream every time."""
    return torch.Generator().manual_seed(FIXED_SEED)
