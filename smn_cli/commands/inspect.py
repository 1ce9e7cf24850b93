"""smn inspect: what is in an adapter file. Needs no base."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from smn_cli.errors import first_few
from smn_cli.terminal.options import TAKES_ADAPTER, JsonOption

if TYPE_CHECKING:
    from smn_cli.adapters.schema import Header
    from smn_cli.adapters.stored import StoredAdapter
    from smn_cli.cascade.cascade import Cascade
    from smn_cli.console import Output
    from smn_cli.schemas.adapter_files import CascadeInFileJson, CascadePartJson, InspectJson

BAR_WIDTH = 30


def inspect(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Adapter or cascade file.", **TAKES_ADAPTER)],
    json: JsonOption = None,
) -> None:
    """Show what an adapter or a cascade holds: base, density by layer or expert, bytes by part, provenance.

    Examples:
        smn inspect adapter.safetensors
        smn inspect adapter.safetensors --json -
    """
    from smn_cli.adapters.stored import load_stored
    from smn_cli.cascade.schema import is_cascade
    from smn_cli.console import Output

    output = Output(json)
    if is_cascade(file):
        _inspect_cascade(output, file)
        return
    adapter = load_stored(file)
    header = adapter.header
    file_bytes = file.stat().st_size
    parts = {
        "mask": adapter.payload_bytes,
        "norm_stats": adapter.norm_stats_bytes,
        "head": adapter.head_bytes,
        "readout": adapter.readout_bytes,
        "metadata": file_bytes - adapter.part_bytes,
    }
    output.result(f"{file}: adapter for {adapter.made_for}, base {header.base_digest[:12]}...")
    if header.description:
        output.result(header.description)
    if header.licence:
        output.result(f"licence {header.licence}")
    codec_needs = " (needs the base to decode)" if header.needs_base else ""
    by_part = ", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in parts.items() if count)
    output.result(
        f"{header.num_weights:,} weights in {len(header.masks)} tensors, density {header.density:.4f}, "
        f"codec {header.codec}{codec_needs}, {file_bytes:,} bytes ({by_part})"
    )
    _show_densities(output, header)
    if header.norm_stats:
        output.result(f"carries {len(header.norm_stats)} normalisation statistics")
    if header.head is not None:
        classes = first_few(list(header.head.classes))
        output.result(f"carries a classifier, {header.head.name}, of {len(header.head.classes)} classes: {classes}")
    readout = adapter.readout
    if readout is not None:
        output.result(
            f"carries a readout, {readout.kind}: {readout.num_features} features to {readout.dim} numbers at "
            f"{readout.entry.bits} bits, fitted to {readout.entry.num_images} images"
        )
    output.result(f"made with {_made_with(header.provenance)}")
    output.json(_describe(file, adapter, {"file": file_bytes, **parts}, {}))


def _inspect_cascade(output: "Output", file: Path) -> None:
    from smn_cli.cascade.file import load_cascade

    cascade = load_cascade(file)
    dispatcher, sizes, combination = cascade.dispatcher, cascade.sizes(), cascade.combination
    header = dispatcher.header
    output.result(f"{file}: cascade for {dispatcher.made_for}, base {header.base_digest[:12]}...")
    output.result(
        f"{len(cascade.experts)} experts, {cascade.mode}, router {cascade.router.kind}, combination "
        f"{combination.kind} of width {combination.dim}, {sizes['file']:,} bytes, "
        f"{sizes['file'] / sizes['dispatcher']:.2f} times the dispatcher's own"
    )
    densities = {"dispatcher": header.density}
    densities.update({f"expert-{number}": each.header.density for number, each in enumerate(cascade.experts)})
    rows = [
        (name, f"{size:,}", f"{densities[name]:.4f}" if name in densities else "")
        for name, size in sizes.items()
        if name != "file"
    ]
    output.table("bytes by part", ("part", "bytes", "density"), rows)
    output.json(_describe(file, dispatcher, sizes, {"cascade": _describe_cascade(cascade)}))


def _show_densities(output: "Output", header: "Header") -> None:
    most_cut = max(1 - entry.density for entry in header.masks) or 1.0
    rows = [
        (entry.name, f"{entry.num_weights:,}", f"{entry.density:.4f}", _bar((1 - entry.density) / most_cut))
        for entry in header.masks
    ]
    columns = ("tensor", "weights", "density", "cut")
    output.table("density by tensor, the bar is the share that is cut", columns, rows, texts={"cut"})


def _describe(file: Path, adapter: "StoredAdapter", sizes: dict[str, int], cascade: "CascadePartJson") -> "InspectJson":
    header = adapter.header
    return {
        "schema": "smn.inspect/1",
        "file": str(file),
        **cascade,
        "arch": header.arch,
        "tag": header.tag,
        "base_digest": header.base_digest,
        "adapted_digest": header.adapted_digest,
        "codec": header.codec,
        "needs_base": header.needs_base,
        "density": header.density,
        "weights": header.num_weights,
        "masks": [
            {"name": e.name, "shape": list(e.shape), "kept": e.num_kept, "density": e.density} for e in header.masks
        ],
        "norm_stats": [name for name, _ in header.norm_stats],
        "classes": list(header.head.classes) if header.head is not None else [],
        "readout": None if adapter.readout is None else adapter.readout.to_json(),
        "preprocessing": header.preprocessing,
        "provenance": header.provenance,
        "license": header.licence,
        "description": header.description,
        "bytes": sizes,
    }


def _describe_cascade(cascade: "Cascade") -> "CascadeInFileJson":
    combination = cascade.combination
    return {
        "mode": cascade.mode,
        "router": cascade.router.kind,
        "combination": {"kind": combination.kind, "dim": combination.dim, "seed": combination.seed},
        "experts": [
            {
                "adapted_digest": each.header.adapted_digest,
                "density": each.header.density,
                "provenance": each.header.provenance,
            }
            for each in cascade.experts
        ],
        "provenance": cascade.provenance,
    }


def _bar(share: float) -> str:
    return "█" * round(share * BAR_WIDTH)


def _made_with(provenance: Mapping[str, Any]) -> str:
    told = {key.replace("_", " "): _short(value) for key, value in provenance.items() if value not in (None, "", [])}
    return ", ".join(f"{key} {words}" for key, words in told.items())


def _short(value: object) -> str:
    if isinstance(value, list):
        return " and ".join(map(_short, value))
    if isinstance(value, dict) and {"name", "size"} <= value.keys():  # of a teacher or witness
        return f"{value['name']} at {value['size']} px"
    if isinstance(value, dict):
        chosen = ("recipe", "num_steps", "batch_size", "seed", "smn", "torch", "timm")
        return "(" + ", ".join(f"{key} {value[key]}" for key in chosen if key in value) + ")"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4f}" if isinstance(value, float) else str(value)
