"""smn verify: proof that an adapter and a base belong together."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from smn_cli.errors import ClashError
from smn_cli.imports import quick_imports
from smn_cli.terminal.option_parameters import checked_by
from smn_cli.terminal.options import TAKES_ADAPTER, JsonOption, WeightsOption

if TYPE_CHECKING:
    from smn_cli.adapters.stored import StoredAdapter
    from smn_cli.cascade.cascade import Cascade
    from smn_cli.console import Output
    from smn_cli.schemas.adapter_files import VerifiedExpertsJson, VerifyJson


def _check(*, quick: bool, weights: Path | None, checkpoint: Path | None) -> None:
    if quick and (weights is not None or checkpoint is not None):
        words = "--quick looks at the file alone: leave --weights and --checkpoint out"
        raise ClashError(words, "quick", ["weights", "checkpoint"])


@checked_by(_check)
def verify(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Adapter or cascade file.", **TAKES_ADAPTER)],
    weights: WeightsOption = None,
    checkpoint: Annotated[
        Path | None, typer.Option("--checkpoint", metavar="CKPT", help="Also check a checkpoint of smn apply.")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Check the file alone: complete, unaltered, well-formed. Needs no base.")
    ] = False,
    json: JsonOption = None,
) -> None:
    """Prove that file and base belong together and rebuild to the recorded digest.

    Examples:
        smn verify adapter.safetensors --quick
        smn verify adapter.safetensors --checkpoint adapted.safetensors
    """
    from smn_cli.console import Output

    output = Output(json)
    if quick:
        output.json(_verify_file(output, file))
        return
    output.json(_verify_network(output, file, weights, checkpoint))


def _verify_file(output: "Output", file: Path) -> "VerifyJson":
    """Checksum, header, types, shapes and names are checked by the reader; canonical is what a writer must write."""
    from smn_cli.adapters.container import read_bytes
    from smn_cli.cascade.schema import is_cascade

    stored: Cascade | StoredAdapter
    if is_cascade(file):
        from smn_cli.cascade.file import load_cascade

        stored = load_cascade(file)
        header = stored.dispatcher.header
        experts: VerifiedExpertsJson = {"experts": [each.header.adapted_digest for each in stored.experts]}
    else:
        from smn_cli.adapters.stored import load_stored

        stored, experts = load_stored(file), {}
        header = stored.header
    is_canonical = stored.to_bytes() == read_bytes(file)
    output.result(f"{file}: complete, unaltered and well-formed")
    output.result("canonical form: yes" if is_canonical else "canonical form: no, another program or version wrote it")
    output.talk("neither the base nor the rebuilt network was looked at: without --quick they are")
    return {
        "schema": "smn.verify/1",
        "file": str(file),
        "base_digest": header.base_digest,
        "adapted_digest": header.adapted_digest,
        **experts,
        "readout": None if header.readout is None else header.readout.kind,
        "checkpoint": None,
        "canonical": is_canonical,
        "verified": True,
        "quick": True,
    }


def _verify_network(output: "Output", file: Path, weights: Path | None, checkpoint: Path | None) -> "VerifyJson":
    from smn_cli.adapters.stored import load_stored
    from smn_cli.cascade.schema import is_cascade
    from smn_cli.console import say_at_once
    from smn_cli.file_rebuild import prove_rebuild

    if not is_cascade(file):
        stored = load_stored(file)
        output.result(f"{file}: complete and unaltered")
        if weights is not None and stored.readout is None and prove_rebuild(stored, weights):
            _tell_rebuilt(output, stored)
            return _proven(output, file, stored, checkpoint, {})
    say_at_once("smn verify: loading torch")
    with quick_imports():
        from smn_cli.adapters.adapter import load_adapter
        from smn_cli.cascade.file import load_cascade
        from smn_cli.features.readout import check_readout
        from smn_cli.rebuild import backbone_for, rebuild

    cascade = load_cascade(file) if is_cascade(file) else None
    if cascade is not None:
        output.result(f"{file}: complete and unaltered")
    adapter = load_adapter(file) if cascade is None else cascade.dispatcher
    readout = adapter.readout if cascade is None else None
    backbone = backbone_for(adapter, weights, is_run=readout is not None and readout.reads_stages)
    rebuild(adapter, backbone)
    _tell_rebuilt(output, adapter)
    if readout is not None:
        check_readout(readout, backbone)
        output.result(f"readout {readout.kind}: takes as many numbers as the network gives, {readout.num_features}")
    experts: VerifiedExpertsJson = {}
    if cascade is not None:
        for number, expert in enumerate(cascade.experts):
            rebuild(expert, backbone)
            output.result(f"expert {number}: the recorded one ({expert.header.adapted_digest[:12]}...)")
        experts["experts"] = [each.header.adapted_digest for each in cascade.experts]
    return _proven(output, file, adapter, checkpoint, experts)


def _tell_rebuilt(output: "Output", adapter: "StoredAdapter") -> None:
    output.result(f"base: the one it was made for ({adapter.made_for}, {adapter.header.base_digest[:12]}...)")
    output.result(f"rebuilt network: the recorded one ({adapter.header.adapted_digest[:12]}...)")


def _proven(
    output: "Output", file: Path, adapter: "StoredAdapter", checkpoint: Path | None, experts: "VerifiedExpertsJson"
) -> "VerifyJson":
    """The result, once the checkpoint, too, is found to be the network."""
    if checkpoint is not None:
        with quick_imports():
            from smn_cli.rebuild import check_checkpoint

        check_checkpoint(adapter, checkpoint)
        output.result(f"{checkpoint}: equal to the rebuilt network")
    readout = None if "experts" in experts else adapter.readout
    return {
        "schema": "smn.verify/1",
        "file": str(file),
        "base_digest": adapter.header.base_digest,
        "adapted_digest": adapter.header.adapted_digest,
        **experts,
        "readout": None if readout is None else readout.kind,
        "checkpoint": str(checkpoint) if checkpoint else None,
        "canonical": None,
        "verified": True,
        "quick": False,
    }
