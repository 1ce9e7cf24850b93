"""smn pack: a run's masks in one small file."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from smn_cli.imports import quick_imports
from smn_cli.terminal.option_parameters import choosing
from smn_cli.terminal.options import JsonOption, WeightsOption, check_out_file
from smn_cli.terminal.tables import report_sizes

if TYPE_CHECKING:
    from smn_cli.schemas.adapter_files import PackJson


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
    weights: WeightsOption = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
    json: JsonOption = None,
) -> None:
    """Pack a run's masks into one adapter file and show what it weighs.

    Examples:
        smn pack run --out adapter.safetensors
        smn pack run --codec bits --out plain.safetensors
    """
    from concurrent.futures import ThreadPoolExecutor

    from smn_cli.console import Output

    with quick_imports():
        from smn_cli.adapters.sizes import measure_base, measure_sizes
        from smn_cli.runs.pack import pack_run
        from smn_cli.runs.run_config import backbone_of_run
        from smn_cli.runs.run_folder import RunFolder

    output = Output(json)
    check_out_file(out, overwrite=overwrite)
    folder = RunFolder.open(run)
    config = folder.read_config()
    backbone = backbone_of_run(config, weights)
    with ThreadPoolExecutor(1) as beside:  # lzma of the base takes a second
        of_base = beside.submit(measure_base, backbone.model.state_dict())
        adapter = pack_run(folder, backbone, codec=codec)
    adapter.save(out)
    if not adapter.header.provenance["finished"]:
        output.talk(f"{run} is not finished: what it keeps so far is packed")
    report = measure_sizes(adapter, of_base.result())
    report_sizes(output, out, report)
    if adapter.header.density == 1 and not adapter.header.norm_stats:
        gained = "nothing is gained by it" if adapter.head is None else "only the classifier is new"
        output.result(f"this is the identity mask: the adapted network is the base, and {gained}")
    content: PackJson = {"schema": "smn.pack/1", "file": str(out), **report.to_json()}
    output.json(content)
