"""The kinds of readout that an adapter can carry."""

from typing import Literal, get_args

LinearKind = Literal["centred", "whitened", "stages"]
LINEAR_KINDS: tuple[LinearKind, ...] = get_args(LinearKind)
