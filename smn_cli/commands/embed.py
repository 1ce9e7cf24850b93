"""smn embed: features of images under a base or an adapted network, for other tools."""

from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from smn_cli.errors import UsageError
from smn_cli.terminal.networks import check_choice, open_networks
from smn_cli.terminal.option_parameters import checked_by
from smn_cli.terminal.options import (
    TAKES_ADAPTER,
    BaseOption,
    DeviceOption,
    ImagesArgument,
    JsonOption,
    PrecisionOption,
    RunOption,
    SizeOption,
    WeightsOption,
    WorkersOption,
    check_out_file,
)

if TYPE_CHECKING:
    from torch import Tensor

    from smn_cli.adapters.readout import StoredReadout
    from smn_cli.console import Output, Ticker
    from smn_cli.data.images.validate import ImageSet
    from smn_cli.distributed import Team
    from smn_cli.features.embed import Embedding
    from smn_cli.schemas.images import EmbedJson
    from smn_cli.terminal.networks import Networks


def _check_given(*, images: Sequence[Path] | None, adapter: Path | None, run: Path | None, arch: str | None) -> None:
    check_choice("smn embed", [] if adapter is None else [adapter], run, arch)
    if not images:
        raise UsageError("smn embed needs IMAGES: folders, images, archives or text files of paths")


@checked_by(_check_given)
def embed(
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            metavar="FILE",
            help="Where to: .npy, .parquet, .csv, .faiss, .lance.",
            rich_help_panel="Output",
        ),
    ],
    images: ImagesArgument = None,
    adapter: Annotated[
        Path | None,
        typer.Option("--adapter", metavar="FILE", help="Adapter file.", rich_help_panel="Network", **TAKES_ADAPTER),
    ] = None,
    run: RunOption = None,
    arch: BaseOption = None,
    weights: WeightsOption = None,
    size: SizeOption = None,
    l2: Annotated[
        bool, typer.Option("--l2", help="Scale every image's features to length 1.", rich_help_panel="Output")
    ] = False,
    no_readout: Annotated[
        bool,
        typer.Option("--no-readout", help="Leave out the readout that the adapter carries.", rich_help_panel="Output"),
    ] = False,
    max_bad: Annotated[
        float,
        typer.Option("--max-bad", min=0, max=1, help="Fraction of bad images put up with.", rich_help_panel="Data"),
    ] = 0.01,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing file.", rich_help_panel="Output")
    ] = False,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "fp32",
    workers: WorkersOption = None,
    json: JsonOption = None,
) -> None:
    """Write the features of images, sorted by path, under an adapted network or a base alone.

    A .faiss is an exact index over the rows: of inner products with --l2, of squared distances without.
    Under torchrun processes share the images, and the file is the one of a single process.

    Examples:
        smn embed ./images --adapter adapter.safetensors --out features.npy
        smn embed ./images --arch resnet50 --l2 --out base.npy
    """
    _check_out(out, overwrite=overwrite)
    from smn_cli.console import Output, say_at_once

    say_at_once("smn embed: loading torch")
    from smn_cli.data.images.find import find_images
    from smn_cli.distributed import device_of_process, team_of
    from smn_cli.features.embed import Embedding
    from smn_cli.features.exports import paths_file
    from smn_cli.features.write import LISTED, check_feature_file
    from smn_cli.terminal.options import resolve_device, resolve_precision, resolve_workers

    chosen_device = device_of_process(resolve_device(device))
    number_format = resolve_precision(precision, chosen_device)
    with team_of(chosen_device) as team:
        output = Output(json, is_silent=not team.is_first)
        paths = team.from_first(lambda: find_images(images or [], note=output.talk))
        check_feature_file(out, paths)
        networks = open_networks([] if adapter is None else [adapter], run, arch, weights, size)
        found = _check(output, paths, max_bad, out, team)
        readout = None if no_readout else _readout_of(networks)
        embedding = Embedding(networks.preprocessing, number_format, resolve_workers(workers), team=team)
        rows = _rows(networks, readout, found.good, embedding, chosen_device, l2)
        num_features = _write(output, out, found.good, rows, team, is_unit=l2)
    if num_features is None:
        return  # the first process tells
    is_listed = out.suffix in LISTED
    beside = f", their paths in {paths_file(out)}" if is_listed else ""
    what = "features" if readout is None else f"numbers by the adapter's readout {readout.kind}"
    output.result(f"{out}: {num_features} {what} of each of {len(found.good)} images{beside}")
    content: EmbedJson = {
        "schema": "smn.embed/1",
        "file": str(out),
        "paths": str(paths_file(out)) if is_listed else None,
        "images": len(found.good),
        "features": num_features,
        "bad": [{"path": str(path), "reason": reason} for path, reason in found.bad.items()],
        "network": next(iter(networks.changes), None),
        "arch": networks.backbone.arch,
        "preprocessing": networks.preprocessing.to_json(),
        "precision": number_format,
        "l2": l2,
        "readout": None if readout is None else readout.kind,
    }
    output.json(content)


def _check_out(out: Path, *, overwrite: bool) -> None:
    from smn_cli.features.exports import check_lance_folder

    if out.suffix == ".lance":
        check_lance_folder(out, overwrite=overwrite)
    else:
        check_out_file(out, overwrite=overwrite)


def _check(output: "Output", paths: list[Path], max_bad: float, out: Path, team: "Team") -> "ImageSet":
    """Sort the bad images out and list them beside the features."""
    from smn_cli.atomic import write_atomically
    from smn_cli.data.images.validate import check_images

    with output.progress("checking images", len(paths)) as tick:
        found = check_images(paths, max_bad=max_bad, progress=lambda done, _total: tick(done), team=team)
    listed = ""
    if found.bad and team.is_first:
        listing = out.with_suffix(".bad_images.txt")
        text = "".join(f"{line}\n" for line in found.bad_lines())
        write_atomically(listing, text.encode(errors="surrogateescape"))
        listed = f", listed in {listing}"
    output.talk(f"{len(found.good)} images, {len(found.bad)} unusable{listed}")
    return found


def _readout_of(networks: "Networks") -> "StoredReadout | None":
    """Of the one adapter that was given; a run is taken without, and a cascade has its own combination."""
    from smn_cli.adapters.adapter import Adapter

    change = next(iter(networks.changes.values()), None)
    return change.readout if isinstance(change, Adapter) else None


def _rows(
    networks: "Networks",
    readout: "StoredReadout | None",
    paths: list[Path],
    embedding: "Embedding",
    device: str,
    l2: bool,
) -> "Iterator[Tensor]":
    from smn_cli.embedding import feature_batches

    change = networks.cascade or next(iter(networks.changes.values()), None)
    return feature_batches(networks.backbone, change, paths, embedding, device=device, l2=l2, readout=readout)


def _write(
    output: "Output", out: Path, paths: list[Path], rows: "Iterator[Tensor]", team: "Team", *, is_unit: bool
) -> int | None:
    """Features of an image; None in other processes of a team than the first, which writes."""
    from smn_cli.distributed import told_of_the_others
    from smn_cli.features.write import write_features

    with output.progress("embedding", len(paths)) as tick, told_of_the_others(team):
        if team.is_first:
            return write_features(out, paths, _counted(rows, tick), is_unit=is_unit)
        deque(rows, maxlen=0)
        return None


def _counted(rows: "Iterator[Tensor]", tick: "Ticker") -> "Iterator[Tensor]":
    num_done = 0
    for row in rows:
        yield row
        num_done += len(row)
        tick(num_done)
