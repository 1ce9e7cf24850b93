"""smn apply: an adapted checkpoint from an adapter and its base."""

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from smn_cli.errors import ClashError, UsageError, first_few
from smn_cli.imports import quick_imports
from smn_cli.publishing.place import WEIGHTS, check_free
from smn_cli.terminal.flags import in_flags
from smn_cli.terminal.option_parameters import checked_by
from smn_cli.terminal.options import TAKES_ADAPTER, JsonOption, WeightsOption, check_out_file

if TYPE_CHECKING:
    from smn_cli.adapters.schema import Header
    from smn_cli.console import Output
    from smn_cli.file_rebuild import RebuiltNetwork
    from smn_cli.schemas.adapter_files import ApplyJson


def _check(*, readout: bool, drop_classifier: bool) -> None:
    if readout and drop_classifier:
        words = "--readout takes the place of the classifier: leave --drop-classifier out"
        raise ClashError(words, "readout", ["drop_classifier"])


@checked_by(_check)
def apply(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="Adapter file, or a cascade with --expert.", **TAKES_ADAPTER)
    ],
    out: Annotated[
        str,  # a Path would lose the / at the end
        typer.Option(
            "--out",
            metavar="CKPT|DIR/",
            help="Checkpoint to write (.safetensors), or a folder that timm and transformers load.",
        ),
    ],
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
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file or folder.")] = False,
    json: JsonOption = None,
) -> None:
    """Rebuild the adapted network over its base, checked before and after, for timm and transformers to load.

    Examples:
        smn apply adapter.safetensors --out adapted.safetensors
        smn apply adapter.safetensors --out adapted/
    """
    target, is_folder = Path(out), out.endswith(("/", os.sep)) or Path(out).is_dir()
    _check_out(target, is_folder=is_folder, overwrite=overwrite)
    from smn_cli.console import Output

    output = Output(json)
    made = None if readout or is_folder or expert is not None else _quickly(file, weights, target, not drop_classifier)
    if made is None:
        folder = (target, overwrite) if is_folder else None
        how: dict[str, Any] = {"drop_classifier": drop_classifier, "readout": readout}
        made = _rebuilt(output, file, expert, weights, folder=folder, out=target, **how)
    header, network = made
    _report(output, file, target, header, network, is_folder=is_folder)


def _report(
    output: "Output",
    file: Path,
    target: Path,
    header: "Header",
    network: "RebuiltNetwork[Any]",
    *,
    is_folder: bool,
) -> None:
    from smn_cli.console import size

    checkpoint = target / WEIGHTS if is_folder else target
    loads_with = _folder_line(target) if is_folder else network.load_line(header.arch, target)
    checkpoint_bytes, file_bytes = checkpoint.stat().st_size, file.stat().st_size
    digest, saved = header.adapted_digest, checkpoint_bytes / file_bytes
    output.result(f"{target}: the base is the recorded one, and so is the result ({digest[:12]}...)")
    output.result(
        f"{size(checkpoint_bytes)} from {size(file_bytes)}: {saved:.0f}x saved for every further adapter over this base"
    )
    output.result(f"load it with {loads_with}")
    _tell_last_layer(output, network)
    content: ApplyJson = {
        "schema": "smn.apply/1",
        "checkpoint": str(checkpoint),
        "folder": str(target) if is_folder else None,
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


def _quickly(
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


def _rebuilt(
    output: "Output",
    file: Path,
    expert: int | None,
    weights: Path | None,
    *,
    drop_classifier: bool,
    readout: bool,
    folder: tuple[Path, bool] | None,
    out: Path,
) -> "tuple[Header, RebuiltNetwork[Any]]":
    """The checkpoint or the folder written; `folder` is its path, and whether it may be replaced."""
    from smn_cli.console import say_at_once

    say_at_once("smn apply: loading torch")
    with quick_imports():
        from smn_cli.adapters.adapter import load_adapter
        from smn_cli.cascade.file import load_expert
        from smn_cli.publishing.folder import write_folder
        from smn_cli.rebuild import backbone_for, rebuild, rebuild_with_readout, save_checkpoint

    adapter = load_adapter(file) if expert is None else load_expert(file, expert)
    backbone = backbone_for(adapter, weights, is_run=folder is not None)
    for note in backbone.notes:
        output.talk(in_flags(note))
    if readout:
        network = rebuild_with_readout(adapter, backbone)
    else:
        network = rebuild(adapter, backbone, with_classifier=not drop_classifier)
    if folder is None:
        save_checkpoint(network, out)
    else:
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        write_folder(folder[0], network, adapter, backbone, file_digest=digest, overwrite=folder[1])
    return adapter.header, network


def _folder_line(folder: Path) -> str:
    return f"timm.create_model({f'local-dir:{folder}'!r}, pretrained=True)"


def _check_out(target: Path, *, is_folder: bool, overwrite: bool) -> None:
    if is_folder:
        check_free(target, overwrite=overwrite)
        return
    check_out_file(target, overwrite=overwrite)
    if target.suffix != ".safetensors":
        raise UsageError(
            f"--out {target}: expected a name ending in .safetensors, by which timm knows the format, or in / for a "
            "folder"
        )


def _tell_last_layer(output: "Output", network: "RebuiltNetwork[Any]") -> None:
    if network.readout is not None:
        output.result(f"it gives the {network.num_classes} numbers of the readout {network.readout}: compare by cosine")
    if network.classes:
        output.result(
            f"its classifier tells {len(network.classes)} classes, in the order: {first_few(list(network.classes))}"
        )
