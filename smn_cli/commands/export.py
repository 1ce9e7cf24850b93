"""smn export: adapters and their base for ONNX Runtime."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from smn_cli.atomic import may_be_written
from smn_cli.errors import ClashError, UsageError, first_few
from smn_cli.terminal.flags import in_flags
from smn_cli.terminal.option_parameters import checked_by
from smn_cli.terminal.options import JsonOption, WeightsOption

if TYPE_CHECKING:
    from smn_cli.schemas.adapter_files import ExportJson

_NEEDED = ("onnx", "onnxscript", "onnxruntime")


def _check(*, static: bool, files: Sequence[Path]) -> None:
    if static and len(files) != 1:
        words = f"--static takes one adapter: found {len(files)}; leave it out for one graph of all"
        raise ClashError(words, "static", ["files"])


@checked_by(_check)
def export(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Adapter files over the same base.")],
    onnx: Annotated[Path, typer.Option("--onnx", metavar="DIR", help="Folder to write.")],
    static: Annotated[
        bool, typer.Option("--static", help="One plain graph of one adapter, with its readout and classifier.")
    ] = False,
    weights: WeightsOption = None,
    json: JsonOption = None,
) -> None:
    """Write one base graph whose weights ONNX Runtime swaps for every adapter, or one plain graph.

    Examples:
        smn export steel.safetensors leaves.safetensors --onnx served/
        smn export steel.safetensors --onnx steel-onnx/ --static
    """
    _check_place(onnx)
    from smn_cli.console import Output, say_at_once, size

    say_at_once("smn export: loading torch")
    from smn_cli.adapters.adapter import load_adapter
    from smn_cli.adapters.comparing import check_same_base
    from smn_cli.onnx.export import export_adapters
    from smn_cli.rebuild import backbone_for

    output = Output(json)
    adapters = [load_adapter(path) for path in files]
    if len(adapters) > 1:
        check_same_base(adapters, [str(path) for path in files])
    backbone = backbone_for(adapters[0], weights)
    for note in backbone.notes:
        output.talk(in_flags(note))
    output.talk(f"tracing {backbone.arch} at {adapters[0].preprocessing.size} px")
    made = export_adapters(adapters, files, backbone, onnx, is_static=static)
    written = {
        str(path.relative_to(onnx).as_posix()): path.stat().st_size
        for path in sorted(onnx.rglob("*"))
        if path.is_file()
    }
    plain = {name: count for name, count in written.items() if "/" not in name}
    output.result(f"{onnx}: {', '.join(f'{name} {size(count)}' for name, count in plain.items())}")
    if made.names:
        small = size(sum(written.values()) - sum(plain.values()))
        output.result(f"{len(made.names)} adapters, {small}: {first_few(list(made.names))}")
    output.result(f"ONNX Runtime computes torch's features to {made.difference:.1g} of their norm")
    if not static:
        output.result(
            f"{len(made.inputs)} weights are inputs: serve it with smn_cli.onnx.OnnxBase({str(onnx)!r}), docs/onnx.md"
        )
    content: ExportJson = {
        "schema": "smn.export/1",
        "folder": str(onnx),
        "arch": backbone.arch,
        "static": static,
        "adapters": list(made.names),
        "inputs": list(made.inputs),
        "difference": made.difference,
        "files": written,
    }
    output.json(content)


def _check_place(folder: Path) -> None:
    if missing := [name for name in _NEEDED if find_spec(name) is None]:
        raise UsageError(f"smn export needs {', '.join(missing)}: pip install 'smn-cli[onnx]'")
    if not folder.absolute().parent.is_dir():
        raise UsageError(f"--onnx {folder}: the folder {folder.absolute().parent} does not exist")
    if not may_be_written(folder):
        raise UsageError(f"--onnx {folder}: it may not be written to there; name another folder")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"--onnx {folder} is there already: name a new folder")
