"""smn apply: an adapted checkpoint from an adapter and its base."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from smn_cli.errors import UsageError, first_few
from smn_cli.imports import quick_imports
from smn_cli.terminal.flags import in_flags
from smn_cli.terminal.options import JsonOption, WeightsOption, check_out_file

if TYPE_CHECKING:
    from smn_cli.adapters.schema import Header
    from smn_cli.console import Output
    from smn_cli.file_rebuild import RebuiltNetwork
    from smn_cli.schemas.adapter_files import ApplyJson


def apply(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Adapter file, or a cascade with --expert.")],
    out: Annotated[Path, typer.Option("--out", metavar="CKPT", help="Checkpoint to write (.safetensors).")],
    weights: WeightsOption = None,
    drop_classifier: Annotated[
        bool, typer.Option("--drop-classifier", help="Leave out any classifier (load with num_classes=0).")
    ] = False,
    readout: Annotated[
        bool, typer.Option("--readout", help="Write the adapter's readout in the classifier's place (num_classes=d).")
    ] = False,
    expert: Annotated[
        int | None, typer.Option("--expert", min=0, metavar="N", help="Take this expert of a cascade, from 0.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
    json: JsonOption = None,
) -> None:
    """Rebuild the adapted checkpoint over its base, checked before and after, for timm to load.

    Examples:
        smn apply adapter.safetensors --out adapted.safetensors
        smn apply cascade/cascade.safetensors --expert 0 --out expert.safetensors
    """
    check_out_file(out, overwrite=overwrite)
    if out.suffix != ".safetensors":
        raise UsageError(f"--out {out}: expected a name ending in .safetensors, by which timm knows the format")
    if readout and drop_classifier:
        raise UsageError("--readout takes the place of the classifier: leave --drop-classifier out")
    from smn_cli.console import Output, size

    output = Output(json)
    made = None if readout or expert is not None else _applied_quickly(file, weights, out, not drop_classifier)
    if made is None:
        made = _applied(output, file, expert, weights, out, not drop_classifier, readout)
    header, network = made
    loads_with = network.load_line(header.arch, out)
    checkpoint_bytes, file_bytes = out.stat().st_size, file.stat().st_size
    digest, saved = header.adapted_digest, checkpoint_bytes / file_bytes
    output.result(f"{out}: the base is the recorded one, and so is the result ({digest[:12]}...)")
    output.result(
        f"{size(checkpoint_bytes)} from {size(file_bytes)}: {saved:.0f}x saved for every further adapter over this base"
    )
    output.result(f"load it with {loads_with}")
    _tell_last_layer(output, network)
    content: ApplyJson = {
        "schema": "smn.apply/1",
        "checkpoint": str(out),
        "arch": header.arch,
        "digest": digest,
        "verified": True,
        "num_classes": network.num_classes,
        "classes": list(network.classes),
        "readout": network.readout,
        "checkpoint_bytes": checkpoint_bytes,
        "adapter_bytes": file_bytes,
        "load_with": loads_with,
    }
    output.json(content)


def _applied_quickly(
    file: Path, weights: Path | None, out: Path, with_classifier: bool
) -> "tuple[Header, RebuiltNetwork[Any]] | None":
    """The checkpoint written with NumPy alone, where the weights need no network to be known."""
    from smn_cli.adapters.stored import load_stored
    from smn_cli.file_rebuild import rebuild_from_file, save_arrays

    adapter = load_stored(file)
    network = None if weights is None else rebuild_from_file(adapter, weights, with_classifier=with_classifier)
    if network is None:
        return None
    save_arrays(network, out)
    return adapter.header, network


def _applied(
    output: "Output",
    file: Path,
    expert: int | None,
    weights: Path | None,
    out: Path,
    with_classifier: bool,
    readout: bool,
) -> "tuple[Header, RebuiltNetwork[Any]]":
    with quick_imports():
        from smn_cli.adapters.adapter import load_adapter
        from smn_cli.cascade.file import load_expert
        from smn_cli.rebuild import backbone_for, rebuild, rebuild_with_readout, save_checkpoint

    adapter = load_adapter(file) if expert is None else load_expert(file, expert)
    backbone = backbone_for(adapter, weights, is_run=False)
    for note in backbone.notes:
        output.talk(in_flags(note))
    if readout:
        network = rebuild_with_readout(adapter, backbone)
    else:
        network = rebuild(adapter, backbone, with_classifier=with_classifier)
    save_checkpoint(network, out)
    return adapter.header, network


def _tell_last_layer(output: "Output", network: "RebuiltNetwork[Any]") -> None:
    if network.readout is not None:
        output.result(f"it gives the {network.num_classes} numbers of the readout {network.readout}: compare by cosine")
    if network.classes:
        output.result(
            f"its classifier tells {len(network.classes)} classes, in the order: {first_few(list(network.classes))}"
        )
