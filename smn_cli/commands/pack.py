"""smn pack: a run's masks in one small file."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from smn_cli.imports import quick_imports
from smn_cli.terminal.option_parameters import choosing
from smn_cli.terminal.options import (
    DeviceOption,
    JsonOption,
    WeightsOption,
    WorkersOption,
    check_out_file,
    resolve_device,
    resolve_workers,
)
from smn_cli.terminal.tables import report_sizes

if TYPE_CHECKING:
    from smn_cli.adapters.adapter import Adapter
    from smn_cli.adapters.sizes import BaseSize
    from smn_cli.backbones.loading import Backbone
    from smn_cli.console import Output
    from smn_cli.runs.run_folder import RunFolder
    from smn_cli.schemas.adapter_files import PackJson
    from smn_cli.schemas.readout_kinds import LinearKind


def pack(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder of smn adapt.")],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="Adapter file to write.")] = Path(
        "adapter.safetensors"
    ),
    codec: Annotated[
        str,
        typer.Option(
            "--codec",
            help="bits, lzma, context or context2 (decode with the base), or auto: the smallest it finds in seconds.",
            **choosing(("auto", "bits", "lzma", "context", "context2")),
        ),
    ] = "auto",
    readout: Annotated[
        str | None,
        typer.Option(
            "--readout",
            help="Carry a readout for vectors, fitted to the run's images: centred, partly whitened, or of the "
            "network's stages.",
            **choosing(("centred", "whitened", "stages")),
        ),
    ] = None,
    licence: Annotated[
        str | None, typer.Option("--license", metavar="NAME", help="Put the adapter's licence in, such as apache-2.0.")
    ] = None,
    description: Annotated[
        str | None, typer.Option("--description", metavar="TEXT", help="Put a line of your own in.")
    ] = None,
    weights: WeightsOption = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
    device: DeviceOption = "auto",
    workers: WorkersOption = None,
    json: JsonOption = None,
) -> None:
    """Pack a run's masks into one adapter file and show what it weighs.

    Examples:
        smn pack run --out adapter.safetensors
        smn pack run --readout whitened --out adapter.safetensors
    """
    from smn_cli.console import Output, say_at_once

    say_at_once("smn pack: loading torch")
    with quick_imports():
        from smn_cli.adapters.schema import check_texts
        from smn_cli.adapters.sizes import measure_sizes
        from smn_cli.runs.run_folder import RunFolder
        from smn_cli.training.run_readout import check_kind, readout_images

    output = Output(json)
    kind = check_kind(readout)
    check_texts(licence, description)
    check_out_file(out, overwrite=overwrite)
    folder = RunFolder.open(run)
    config = folder.read_config()
    if kind is not None:
        readout_images(folder)  # refuses a run whose images are gone before the work is done
    adapter, backbone, measured = _packed(folder, config, weights, codec)
    if kind is not None:
        adapter = _with_readout(output, adapter, folder, backbone, kind, device, workers)
    adapter = adapter.described(licence=licence, description=description)
    adapter.save(out)
    if not adapter.header.provenance["finished"]:
        output.talk(f"{run} is not finished: what it keeps so far is packed")
    report = measure_sizes(adapter, measured)
    report_sizes(output, out, report)
    if adapter.header.density == 1 and not adapter.header.norm_stats:
        carried = [
            name for name, part in (("classifier", adapter.head), ("readout", adapter.readout)) if part is not None
        ]
        gained = f"only the {' and the '.join(carried)} is new" if carried else "nothing is gained by it"
        output.result(f"this is the identity mask: the adapted network is the base, and {gained}")
    content: PackJson = {
        "schema": "smn.pack/1",
        "file": str(out),
        "readout": kind,
        "license": licence or "",
        "description": description or "",
        **report.to_json(),
    }
    output.json(content)


def _packed(
    folder: "RunFolder", config: "dict[str, Any]", weights: Path | None, codec: str
) -> "tuple[Adapter, Backbone, BaseSize]":
    """The adapter, its base, and what the base weighs; reading, hashing and lzma let go of the interpreter."""
    with quick_imports():
        from smn_cli.adapters.sizes import measure_base
        from smn_cli.runs.pack import pack_run
        from smn_cli.runs.run_config import backbone_of_run
        from smn_cli.runs.run_result import read_learned
        from smn_cli.threads import computing_with, torch_threads

    with torch_threads(2) as beside:
        with computing_with(1):
            learned = beside.submit(read_learned, folder)
            backbone = backbone_of_run(config, weights, is_quick=True)
        of_base = beside.submit(measure_base, backbone.model.state_dict())
        adapter = pack_run(folder, backbone, codec=codec, learned=learned.result)
    return adapter, backbone, of_base.result()


def _with_readout(
    output: "Output",
    adapter: "Adapter",
    folder: "RunFolder",
    backbone: "Backbone",
    kind: "LinearKind",
    device: str,
    workers: int | None,
) -> "Adapter":
    from smn_cli.training.run_readout import readout_images, with_readout_of_run

    where = resolve_device(device)
    with output.progress("embedding", len(readout_images(folder))) as tick:
        made = with_readout_of_run(
            adapter,
            folder,
            backbone,
            kind,
            device=where,
            num_workers=resolve_workers(workers),
            progress=lambda done, _total: tick(done),
        )
    if made.readout is not None:
        output.talk(f"readout {kind}: {made.readout.dim} numbers an image, fitted to {made.readout.entry.num_images}")
    return made
