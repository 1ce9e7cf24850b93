"""smn diff: what two adapters have in common."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from smn_cli.imports import quick_imports
from smn_cli.terminal.options import TAKES_ADAPTER, JsonOption, WeightsOption

if TYPE_CHECKING:
    import numpy as np

    from smn_cli.adapters.stored import StoredAdapter
    from smn_cli.schemas.adapter_files import DiffJson


def diff(
    one: Annotated[Path, typer.Argument(metavar="A", help="Adapter file.", **TAKES_ADAPTER)],
    other: Annotated[Path, typer.Argument(metavar="B", help="Another one over the same base.", **TAKES_ADAPTER)],
    weights: WeightsOption = None,
    json: JsonOption = None,
) -> None:
    """Compare two adapters: agreement by layer, overlap of the cut weights, what else differs.

    Examples:
        smn diff a.safetensors b.safetensors
        smn diff a.safetensors b.safetensors --json diff.json
    """
    from smn_cli.adapters.comparing import (
        check_same_base,
        compare_masks,
        differing_settings,
        differing_statistics,
        in_all,
    )
    from smn_cli.adapters.stored import load_stored
    from smn_cli.console import Output

    output = Output(json)
    adapters = [load_stored(path) for path in (one, other)]
    check_same_base(adapters, [str(one), str(other)])
    masks = _masks(adapters, weights)
    by_tensor = compare_masks(*masks)
    total = in_all(by_tensor)
    rows = [
        (each.name, f"{each.num_weights:,}", f"{each.agreement:.4f}", f"{each.jaccard:.4f}")
        for each in (*by_tensor, total)
    ]
    output.table(f"{one} and {other}", ("tensor", "weights", "agreement", "Jaccard of the cut"), rows)
    statistics = differing_statistics(*adapters)
    settings = differing_settings(*adapters)
    if statistics:
        output.result(f"{len(statistics)} carried statistics differ")
    for name, (first, second) in settings.items():
        output.result(f"{name}: {first} and {second}")
    content: DiffJson = {
        "schema": "smn.diff/1",
        "files": [str(one), str(other)],
        "base_digest": adapters[0].header.base_digest,
        "same_network": adapters[0].header.adapted_digest == adapters[1].header.adapted_digest,
        "density": [adapter.header.density for adapter in adapters],
        "agreement": total.agreement,
        "jaccard": total.jaccard,
        "masks": [each.to_json() for each in by_tensor],
        "norm_stats": statistics,
        "differs": {name: list(values) for name, values in settings.items()},
    }
    output.json(content)


def _masks(adapters: "list[StoredAdapter]", weights: Path | None) -> "list[dict[str, np.ndarray]]":
    """Both masks; the base is read only if a codec needs it, or to check it where it is given."""
    if weights is None and not any(adapter.header.needs_base for adapter in adapters):
        return [adapter.mask_arrays({}) for adapter in adapters]
    base = _base(adapters[0], weights)
    for adapter in adapters:
        adapter.check_shapes(base)
    return [adapter.mask_arrays(base) for adapter in adapters]


def _base(adapter: "StoredAdapter", weights: Path | None) -> "dict[str, np.ndarray]":
    """The base's tensors, known to be those; a network is built only if they do not stand in the file as they are."""
    from smn_cli.adapters.base_file import read_matching_base
    from smn_cli.console import say_at_once

    found = None if weights is None else read_matching_base(Path(weights), adapter.base_fingerprint)
    if found is not None:
        return found
    say_at_once("smn diff: loading torch")
    with quick_imports():
        from smn_cli.adapters.fingerprint import check_base, select_base
        from smn_cli.rebuild import backbone_for

    state = backbone_for(adapter, weights, is_run=False).model.state_dict()
    check_base(state, adapter.base_fingerprint, made_for=adapter.made_for)
    return {name: tensor.numpy() for name, tensor in select_base(state, adapter.base_fingerprint).items()}
