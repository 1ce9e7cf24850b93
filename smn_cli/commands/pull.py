"""smn pull: an adapter from the Hugging Face hub, checked, as a local file."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from smn_cli.terminal.options import JsonOption, check_out_file

if TYPE_CHECKING:
    from smn_cli.schemas.hub import PullJson


def pull(
    address: Annotated[
        str, typer.Argument(metavar="USER/NAME", help="Repository on the hub, as USER/NAME[/FILE][@REVISION].")
    ],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="File to write; by default its name on the hub.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
    json: JsonOption = None,
) -> None:
    """Fetch an adapter or a cascade from the Hugging Face hub; it is written only if it is complete and unaltered.

    Examples:
        smn pull USER/NAME --out adapter.safetensors
        smn pull USER/NAME@v1
    """
    from smn_cli.adapters.container import read_bytes
    from smn_cli.adapters.stored import load_stored
    from smn_cli.atomic import write_atomically
    from smn_cli.cascade.schema import is_cascade
    from smn_cli.console import Output, size
    from smn_cli.hub import commit_of, fetch, parse_address

    output = Output(json)
    source = parse_address(address)
    target = Path(Path(source.file).name) if out is None else out
    check_out_file(target, overwrite=overwrite)
    found = fetch(source)
    if is_cascade(found):
        from smn_cli.cascade.file import load_cascade

        header = load_cascade(found).dispatcher.header
    else:
        header = load_stored(found).header
    data = read_bytes(found)
    write_atomically(target, data)
    revision = commit_of(found)
    output.result(f"{target}: {size(len(data))} from {source.repository}, commit {revision[:12] or 'unknown'}")
    output.result(f"for {header.arch}, complete and unaltered; smn inspect {target} tells more")
    content: PullJson = {
        "schema": "smn.pull/1",
        "repository": source.repository,
        "revision": revision,
        "file": str(target),
        "bytes": len(data),
        "adapted_digest": header.adapted_digest,
    }
    output.json(content)
