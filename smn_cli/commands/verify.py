"""smn verify: proof that an adapter and a base belong together."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from smn_cli.terminal.options import JsonOption, WeightsOption

if TYPE_CHECKING:
    from smn_cli.schemas.adapter_files import VerifiedExpertsJson, VerifyJson


def verify(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Adapter or cascade file.")],
    weights: WeightsOption = None,
    checkpoint: Annotated[
        Path | None, typer.Option("--checkpoint", metavar="CKPT", help="Also check a checkpoint of smn apply.")
    ] = None,
    json: JsonOption = None,
) -> None:
    """Prove that file and base belong together and rebuild to the recorded digest.

    Examples:
        smn verify adapter.safetensors
        smn verify adapter.safetensors --checkpoint adapted.safetensors
    """
    from smn_cli.adapters.adapter import load_adapter
    from smn_cli.cascade.file import is_cascade, load_cascade
    from smn_cli.console import Output
    from smn_cli.features.readout import check_readout
    from smn_cli.rebuild import backbone_for, check_checkpoint, rebuild

    output = Output(json)
    cascade = load_cascade(file) if is_cascade(file) else None
    adapter = load_adapter(file) if cascade is None else cascade.dispatcher
    output.result(f"{file}: complete and unaltered")
    backbone = backbone_for(adapter, weights)
    rebuild(adapter, backbone)
    output.result(f"base: the one it was made for ({adapter.made_for}, {adapter.header.base_digest[:12]}...)")
    output.result(f"rebuilt network: the recorded one ({adapter.header.adapted_digest[:12]}...)")
    readout = adapter.readout if cascade is None else None
    if readout is not None:
        check_readout(readout, backbone, adapter.preprocessing.size)
        output.result(f"readout {readout.kind}: takes as many numbers as the network gives, {readout.num_features}")
    for number, expert in enumerate(cascade.experts if cascade is not None else ()):
        rebuild(expert, backbone)
        output.result(f"expert {number}: the recorded one ({expert.header.adapted_digest[:12]}...)")
    if checkpoint is not None:
        check_checkpoint(adapter, checkpoint)
        output.result(f"{checkpoint}: equal to the rebuilt network")
    experts: VerifiedExpertsJson = {}
    if cascade is not None:
        experts["experts"] = [each.header.adapted_digest for each in cascade.experts]
    content: VerifyJson = {
        "schema": "smn.verify/1",
        "file": str(file),
        "base_digest": adapter.header.base_digest,
        "adapted_digest": adapter.header.adapted_digest,
        **experts,
        "readout": None if readout is None else readout.kind,
        "checkpoint": str(checkpoint) if checkpoint else None,
        "verified": True,
    }
    output.json(content)
