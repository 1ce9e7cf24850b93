"""An expert: an adapter that is coded against the dispatcher's (docs/format.md, "The cascade file")."""

from collections.abc import Mapping

from torch import Tensor

from smn_cli.adapters.adapter import Adapter


class Expert(Adapter):
    """An adapter over the same base as its dispatcher, stored as what differs from it.

    It rebuilds, applies and refuses like any adapter. It has no file of its own: `plain` makes one.
    """

    def plain(self, base: Mapping[str, Tensor], *, codec: str = "auto") -> Adapter:
        """The same network as an adapter that stands alone.

        Raises:
            MismatchError, AdapterFileError: as in `Adapter.rebuild`.
        """
        raise NotImplementedError
