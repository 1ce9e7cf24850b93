"""smn eval: base and adapted features on labeled folders, with gates for CI."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from smn_cli.errors import GateError, UsageError
from smn_cli.terminal.cascades import report_rows
from smn_cli.terminal.options import DeviceOption, JsonOption, PrecisionOption, WeightsOption, WorkersOption
from smn_cli.terminal.tables import report_scores

if TYPE_CHECKING:
    from smn_cli.adapters.swap import Change
    from smn_cli.backbones.loading import Backbone
    from smn_cli.cascade.cascade import Cascade
    from smn_cli.console import Output
    from smn_cli.data.embedding import Embedding
    from smn_cli.data.labeled import LabeledSplit
    from smn_cli.data.preprocessing import Preprocessing
    from smn_cli.evaluation.compare import Comparison, Protocol
    from smn_cli.evaluation.gates import GateResult


def evaluate(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="train/ and test/ (or val/), or class folders alone.")],
    adapter: Annotated[Path | None, typer.Option("--adapter", metavar="FILE", help="Adapter or cascade file.")] = None,
    run: Annotated[Path | None, typer.Option("--run", metavar="RUN", help="Run folder instead of a file.")] = None,
    arch: Annotated[str | None, typer.Option("--arch", help="timm model, to score a base alone.")] = None,
    weights: WeightsOption = None,
    knn: Annotated[bool, typer.Option("--knn", help="Nearest neighbours (the default).")] = False,
    linear: Annotated[bool, typer.Option("--linear", help="Linear probe.")] = False,
    k: Annotated[
        list[int] | None, typer.Option("--k", min=1, help="Neighbours; the first is top1. May repeat.")
    ] = None,
    size: Annotated[int | None, typer.Option("--size", min=16, help="Image side; by default the adapter's.")] = None,
    max_train: Annotated[int | None, typer.Option("--max-train", min=2, help="Most training images used.")] = None,
    max_test: Annotated[int | None, typer.Option("--max-test", min=1, help="Most test images used.")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of a split made here, and of the limits.")] = 0,
    fail_under: Annotated[
        list[str] | None, typer.Option("--fail-under", metavar="METRIC=X", help="Exit 3 below it. May repeat.")
    ] = None,
    min_gain: Annotated[
        list[str] | None, typer.Option("--min-gain", metavar="METRIC=X", help="The same, of the gain over the base.")
    ] = None,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "fp32",
    workers: WorkersOption = None,
    no_cache: Annotated[
        bool, typer.Option("--no-cache", help="Embed every image, though features may be in the cache.")
    ] = False,
    json: JsonOption = None,
) -> None:
    """Score base and adapted features on labeled folders, and say better, same or worse."""
    from smn_cli.evaluation.gates import check_gates, parse_gate

    gates = [parse_gate(text, on_gain=False) for text in fail_under or []]
    gates += [parse_gate(text, on_gain=True) for text in min_gain or []]
    if adapter is not None and run is not None:
        raise UsageError("--adapter and --run both name the masks: give one of them")
    if adapter is None and run is None and arch is None:
        raise UsageError("smn eval needs --adapter FILE, --run RUN or, for a base alone, --arch NAME")
    from smn_cli.console import Output
    from smn_cli.data.embedding import Embedding
    from smn_cli.data.feature_cache import FeatureCache
    from smn_cli.data.labeled import load_labeled_split
    from smn_cli.evaluation.compare import Protocol
    from smn_cli.terminal.options import resolve_device, resolve_precision, resolve_workers

    output = Output(json)
    chosen_device = resolve_device(device)
    number_format = resolve_precision(precision, chosen_device)
    split = load_labeled_split(data, seed=seed, max_bank=max_train, max_query=max_test)
    change, backbone, preprocessing = _networks(adapter, run, arch, weights, size)
    output.talk(
        f"{len(split.bank_paths)} training and {len(split.query_paths)} test images, {len(split.classes)} classes "
        f"({split.origin}), {preprocessing.size} px"
    )
    embedding = Embedding(preprocessing, number_format, resolve_workers(workers), None if no_cache else FeatureCache())
    protocol = Protocol(knn=knn or not linear, linear=linear, ks=tuple(k or Protocol.ks))
    comparison = _score(output, backbone, change, split, embedding, protocol, chosen_device)
    judged = comparison.adapted or comparison.base
    results = check_gates(gates, judged.metrics, {name: gain.value for name, gain in comparison.gains.items()})
    report_scores(output, comparison, results)
    output.json(
        {
            "schema": "smn.eval/1",
            "data": _describe(data, split),
            "arch": backbone.arch,
            "preprocessing": preprocessing.to_json(),
            "precision": number_format,
            **comparison.to_json(),
            "gates": [result.to_json() for result in results],
            "passed": all(result.passed for result in results),
        }
    )
    _raise_if_failed(results)


def _score(
    output: "Output",
    backbone: "Backbone",
    change: "Change | Cascade | None",
    split: "LabeledSplit",
    embedding: "Embedding",
    protocol: "Protocol",
    device: str,
) -> "Comparison":
    from smn_cli.api import evaluate_networks

    num_networks = 1 if change is None else 2 + len(getattr(change, "experts", ()))
    num_images = (len(split.bank_paths) + len(split.query_paths)) * num_networks
    with output.progress("embedding", num_images) as tick:
        comparison = evaluate_networks(backbone, change, split, embedding, protocol, device=device, progress=tick)
    cache = embedding.cache
    if cache is not None and cache.num_found:
        output.talk(f"features of {cache.num_found} images were in the cache; --no-cache embeds them again")
    if (rows := getattr(comparison, "rows", None)) is not None:
        report_rows(output, rows)
    return comparison


def _raise_if_failed(results: "list[GateResult]") -> None:
    failed = [result for result in results if not result.passed]
    if failed:
        found = "was not computed" if failed[0].value is None else f"is {failed[0].value:.4f}"
        raise GateError(f"{len(failed)} of {len(results)} gates failed, first {failed[0].gate}: it {found}")


def _networks(
    file: Path | None, run: Path | None, arch: str | None, weights: Path | None, size: int | None
) -> "tuple[Change | Cascade | None, Backbone, Preprocessing]":
    """What changes the base, if anything, the base, and how images are prepared."""
    from dataclasses import replace

    from smn_cli.adapters.adapter import load_adapter
    from smn_cli.api import backbone_for, change_of_run, preprocessing_for
    from smn_cli.backbones.loading import load_backbone
    from smn_cli.cascade.file import is_cascade, load_cascade
    from smn_cli.training.record import backbone_of_run, preprocessing_in
    from smn_cli.training.run_folder import RunFolder
    from smn_cli.training.session import preprocessing_of

    change: Change | Cascade
    if file is not None and is_cascade(file):
        change = load_cascade(file)
        backbone, preprocessing = backbone_for(change.dispatcher, weights), preprocessing_for(change.dispatcher)
    elif file is not None:
        adapter = load_adapter(file)
        backbone, change, preprocessing = backbone_for(adapter, weights), adapter, preprocessing_for(adapter)
    elif run is not None:
        folder = RunFolder.open(run)
        config = folder.read_config()
        backbone = backbone_of_run(config, weights)
        change, preprocessing = change_of_run(folder, backbone), preprocessing_in(config, folder)
    else:
        backbone = load_backbone(str(arch), weights)
        return None, backbone, preprocessing_of(backbone, size or backbone.native_size)
    if arch is not None and arch.partition(".")[0] != backbone.arch:
        raise UsageError(f"--arch {arch} is not the adapter's {backbone.arch}: leave it out")
    return change, backbone, replace(preprocessing, size=size) if size else preprocessing


def _describe(data: Path, split: "LabeledSplit") -> dict[str, Any]:
    return {
        "path": str(data),
        "train": len(split.bank_paths),
        "test": len(split.query_paths),
        "classes": split.classes,
        "split": split.origin,
    }
