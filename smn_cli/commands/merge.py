"""smn merge: one adapter out of several over the same base."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from smn_cli.terminal.option_parameters import choosing
from smn_cli.terminal.options import TAKES_ADAPTER, JsonOption, WeightsOption, check_out_file

if TYPE_CHECKING:
    from smn_cli.adapters.adapter import Adapter
    from smn_cli.schemas.adapter_files import MergeJson


def merge(
    files: Annotated[
        list[Path], typer.Argument(metavar="A B...", help="Adapter files over the same base.", **TAKES_ADAPTER)
    ],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="Adapter file to write.")],
    how: Annotated[
        str,
        typer.Option(
            "--how",
            help="Keep what all keep (and), any keeps (or), most keep (majority).",
            **choosing(("and", "or", "majority")),
        ),
    ] = "majority",
    weights: WeightsOption = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
    json: JsonOption = None,
) -> None:
    """Merge the masks of several adapters into one; evaluate it before you ship it.

    Examples:
        smn merge a.safetensors b.safetensors c.safetensors --out merged.safetensors
        smn merge a.safetensors b.safetensors --how or --out merged.safetensors
    """
    check_out_file(out, overwrite=overwrite)
    from smn_cli.console import Output, say_at_once

    say_at_once("smn merge: loading torch")
    from smn_cli.adapters.adapter import load_adapter
    from smn_cli.adapters.combining import HOW
    from smn_cli.adapters.combining import merge as merge_adapters
    from smn_cli.adapters.comparing import check_same_base
    from smn_cli.errors import UsageError
    from smn_cli.rebuild import backbone_for

    output = Output(json)
    if how not in HOW:
        raise UsageError(f"--how {how} is unknown: expected one of {', '.join(HOW)}")
    if len(files) < 2:
        raise UsageError("smn merge needs two or more adapters")
    adapters, names = [load_adapter(path) for path in files], [str(path) for path in files]
    check_same_base(adapters, names)
    merged = merge_adapters(
        adapters, names, backbone_for(adapters[0], weights, is_run=False).model.state_dict(), how=how
    )
    merged.save(out)
    for adapter, name in zip(adapters, names, strict=True):
        for lost in _left_out(adapter):
            output.talk(f"{name}: {lost}")
    file_bytes = out.stat().st_size
    densities = ", ".join(f"{adapter.header.density:.4f}" for adapter in adapters)
    output.result(f"{out}: {how} of {len(files)} masks of density {densities} is {merged.header.density:.4f}")
    output.result(f"{file_bytes:,} bytes, codec {merged.header.codec}")
    content: MergeJson = {
        "schema": "smn.merge/1",
        "file": str(out),
        "files": names,
        "how": how,
        "base_digest": merged.header.base_digest,
        "adapted_digest": merged.header.adapted_digest,
        "density": merged.header.density,
        "densities": [adapter.header.density for adapter in adapters],
        "codec": merged.header.codec,
        "bytes": file_bytes,
    }
    output.json(content)


def _left_out(adapter: "Adapter") -> list[str]:
    """What of an adapter fits no other mask, and what to do."""
    lost = []
    if adapter.head is not None:
        lost.append("its classifier is left out, for it fits no other mask; train one on the merged features")
    if adapter.readout is not None:
        lost.append("its readout is left out, for it was fitted to another network's features; pack a run for one")
    return lost
