"""smn eval: base and adapted features on labeled folders, with gates for CI."""

from collections.abc import Sequence
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Annotated

import typer

from smn_cli.config.eval_options import EvalOptions
from smn_cli.errors import ClashError, GateError
from smn_cli.evaluation.gates import check_metrics, parse_gate
from smn_cli.evaluation.metric_names import DEFAULT_KS
from smn_cli.terminal.cascades import report_rows
from smn_cli.terminal.eval_files import check_files, write_files
from smn_cli.terminal.eval_results import hold_gates, known_early, names_asked_for, names_of, scores_json
from smn_cli.terminal.low_shot import check_low_shot_options, parse_fractions, report_low_shot
from smn_cli.terminal.networks import check_choice, open_networks
from smn_cli.terminal.option_parameters import checked_by, takes_options
from smn_cli.terminal.options import (
    TAKES_ADAPTER,
    BaseOption,
    DeviceOption,
    JsonOption,
    PrecisionOption,
    RunOption,
    SizeOption,
    WeightsOption,
    WorkersOption,
)
from smn_cli.terminal.tables import report_controls, report_scores

if TYPE_CHECKING:
    from smn_cli.backbones.loading import Backbone
    from smn_cli.cascade.cascade import Cascade
    from smn_cli.console import Output
    from smn_cli.data.labels.eval_split import LabeledSplit
    from smn_cli.evaluation.compare import Comparison, ScoringProtocol
    from smn_cli.evaluation.gates import Gate, GateResult
    from smn_cli.evaluation.low_shot import LabelSubsets, LowShotRow
    from smn_cli.features.embed import Embedding
    from smn_cli.reports.evaluation import Evaluation
    from smn_cli.schemas.scores import EvalDataJson, EvalJson
    from smn_cli.terminal.networks import Networks


def _check(*, adapter: Sequence[Path] | None, run: Path | None, arch: str | None, options: EvalOptions) -> None:
    check_choice("smn eval", adapter or [], run, arch)
    check_low_shot_options(options)


@takes_options
@checked_by(_check)
def evaluate(
    *,
    data: Annotated[Path, typer.Argument(metavar="DATA", help="train/ and test/ (or val/), or class folders alone.")],
    adapter: Annotated[
        list[Path] | None,
        typer.Option(
            "--adapter",
            metavar="FILE",
            help="Adapter or cascade. May repeat; gates are about the first.",
            rich_help_panel="Network",
            **TAKES_ADAPTER,
        ),
    ] = None,
    run: RunOption = None,
    arch: BaseOption = None,
    weights: WeightsOption = None,
    size: SizeOption = None,
    options: EvalOptions,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "fp32",
    workers: WorkersOption = None,
    no_cache: Annotated[
        bool,
        typer.Option(
            "--no-cache", help="Embed every image, though features may be in the cache.", rich_help_panel="Run"
        ),
    ] = False,
    json: JsonOption = None,
) -> None:
    """Score base and adapted features on labeled folders, and say better, same or worse.

    Under torchrun processes share the images, and the figures are those of a single process.

    Examples:
        smn eval ./labeled --adapter adapter.safetensors --knn --linear
        smn eval ./labeled --run run --min-gain knn.top1=0.0 --json eval.json
    """
    started = monotonic()
    gates = _parse_gates(options)
    check_files(options)
    fractions = parse_fractions(options.label_fraction) if options.label_fraction is not None else []
    check_metrics(known_early(gates), names_asked_for(options, fractions, is_adapted=bool(adapter or run)))
    from smn_cli.console import Output, say_at_once

    say_at_once("smn eval: loading torch")
    from smn_cli.data.labels.eval_split import load_labeled_split
    from smn_cli.distributed import device_of_process, team_of
    from smn_cli.features.cache import FeatureCache
    from smn_cli.features.embed import Embedding
    from smn_cli.terminal.options import resolve_device, resolve_precision, resolve_workers

    device = device_of_process(resolve_device(device))
    precision = resolve_precision(precision, device)
    with team_of(device) as team:
        output = Output(json, is_silent=not team.is_first)
        split = team.from_first(
            lambda: load_labeled_split(data, seed=options.seed, max_train=options.max_train, max_test=options.max_test)
        )
        networks = open_networks(adapter or [], run, arch, weights, size)
        output.talk(f"{_in_words(split)}, {networks.preprocessing.size} px")
        if networks.cascade is not None and fractions:
            raise ClashError("--label-fraction does not take a cascade: give adapters", "label_fraction", ["adapter"])
        if gates:
            check_metrics(gates, names_of(networks, options, fractions, len(split.train_paths)))
        cache = None if no_cache else FeatureCache()
        embedding = Embedding(networks.preprocessing, precision, resolve_workers(workers), cache, team)
        scored = _score(output, networks, split, embedding, fractions, options, device)
    if scored is None:
        return  # the first process goes on alone
    comparisons, rows = scored
    results = hold_gates(gates, next(iter(comparisons.values())), rows)
    _report(output, comparisons, rows, results)
    evaluation = _gather(networks, split, comparisons, results, rows, _facts(options, split, embedding), started)
    output.json(_content(data, split, networks, precision, comparisons, evaluation, rows, results))
    write_files(output, options, evaluation)
    _raise_if_failed(results)


def _content(
    data: Path,
    split: "LabeledSplit",
    networks: "Networks",
    precision: str,
    comparisons: "dict[str, Comparison]",
    evaluation: "Evaluation",
    rows: "list[LowShotRow]",
    results: "list[GateResult]",
) -> "EvalJson":
    return {
        "schema": "smn.eval/1",
        "data": _describe(data, split),
        "arch": networks.backbone.arch,
        "preprocessing": networks.preprocessing.to_json(),
        "precision": precision,
        **scores_json(comparisons, evaluation.details, rows),
        "gates": [result.to_json() for result in results],
        "passed": not evaluation.failed,
    }


def _parse_gates(options: EvalOptions) -> "list[Gate]":
    gates = [parse_gate(text, on_gain=False) for text in options.fail_under]
    return gates + [parse_gate(text, on_gain=True) for text in options.min_gain]


def _protocol(options: EvalOptions) -> "ScoringProtocol":
    from smn_cli.evaluation.compare import ScoringProtocol

    return ScoringProtocol(knn=options.is_knn, linear=options.linear, ks=options.k or DEFAULT_KS, c=options.linear_c)


def _draw_subsets(split: "LabeledSplit", fractions: list[float], options: EvalOptions) -> "list[LabelSubsets]":
    from smn_cli.data.labels.label_subsets import draw_subsets

    balanced = not options.unbalanced
    return draw_subsets(
        split.train_labels, fractions, num_repeats=options.repeats, seed=options.seed, balanced=balanced
    )


def _score(
    output: "Output",
    networks: "Networks",
    split: "LabeledSplit",
    embedding: "Embedding",
    fractions: list[float],
    options: EvalOptions,
    device: str,
) -> "tuple[dict[str, Comparison], list[LowShotRow]] | None":
    """Comparisons by name (the base alone has none), and the table of few labels if it is asked for.

    None in other processes of a team than the first.
    """
    from smn_cli.distributed import told_of_the_others
    from smn_cli.scoring import help_to_score

    protocol = _protocol(options)
    with told_of_the_others(embedding.team):
        if not embedding.team.is_first:
            asked = networks.cascade or networks.changes
            help_to_score(
                networks.backbone, asked, split, embedding, protocol, controls=options.controls, device=device
            )
            return None
        if networks.cascade is not None:
            cascade = _score_cascade(output, networks.backbone, networks.cascade, split, embedding, protocol, device)
            return {"cascade": cascade}, []
        return _score_adapters(output, networks, split, embedding, protocol, fractions, options, device)


def _score_adapters(
    output: "Output",
    networks: "Networks",
    split: "LabeledSplit",
    embedding: "Embedding",
    protocol: "ScoringProtocol",
    fractions: list[float],
    options: EvalOptions,
    device: str,
) -> "tuple[dict[str, Comparison], list[LowShotRow]]":
    from smn_cli.scoring import compare_networks

    num_images = (len(split.train_paths) + len(split.test_paths)) * (1 + len(networks.changes))
    with output.progress("embedding", num_images) as tick:
        scored = compare_networks(
            networks.backbone,
            networks.changes,
            split,
            embedding,
            protocol,
            subsets=_draw_subsets(split, fractions, options),
            controls=options.controls,
            device=device,
            progress=tick,
        )
    _tell_of_cache(output, embedding)
    return scored


def _score_cascade(
    output: "Output",
    backbone: "Backbone",
    cascade: "Cascade",
    split: "LabeledSplit",
    embedding: "Embedding",
    protocol: "ScoringProtocol",
    device: str,
) -> "Comparison":
    from smn_cli.scoring import evaluate_cascade

    num_images = len(split.train_paths) + len(split.test_paths)
    with output.progress("embedding", num_images * (2 + len(cascade.experts))) as tick:
        comparison = evaluate_cascade(backbone, cascade, split, embedding, protocol, device=device, progress=tick)
    _tell_of_cache(output, embedding)
    report_rows(output, comparison.rows)
    return comparison


def _tell_of_cache(output: "Output", embedding: "Embedding") -> None:
    cache = embedding.cache
    if cache is not None and cache.num_found:
        output.talk(f"features of {cache.num_found} images were in the cache; --no-cache embeds them again")


def _report(
    output: "Output", comparisons: "dict[str, Comparison]", rows: "list[LowShotRow]", results: "list[GateResult]"
) -> None:
    for number, (name, comparison) in enumerate(comparisons.items()):
        report_scores(output, comparison, [] if number else results, name=name if len(comparisons) > 1 else None)
        report_controls(output, comparison)
    if rows:
        report_low_shot(output, rows)


def _in_words(split: "LabeledSplit") -> str:
    return (
        f"{len(split.train_paths)} training and {len(split.test_paths)} test images, {len(split.classes)} classes "
        f"({split.origin})"
    )


def _gather(
    networks: "Networks",
    split: "LabeledSplit",
    comparisons: "dict[str, Comparison]",
    results: "list[GateResult]",
    rows: "list[LowShotRow]",
    facts: dict[str, str],
    started: float,
) -> "Evaluation":
    """Everything for the files, with what lies behind the scores."""
    import torch

    from smn_cli.evaluation.details import details_of
    from smn_cli.reports.evaluation import Evaluation

    labels, paths = torch.tensor(split.test_labels), [str(path) for path in split.test_paths]
    return Evaluation(
        arch=networks.backbone.arch,
        facts=facts,
        comparisons=comparisons,
        details={name: details_of(each, labels, split.classes, paths) for name, each in comparisons.items()},
        gates=results,
        rows=rows,
        preprocessing=networks.preprocessing,
        test_paths=split.test_paths,
        seconds=monotonic() - started,
    )


def _facts(options: EvalOptions, split: "LabeledSplit", embedding: "Embedding") -> dict[str, str]:
    facts = {
        "labels": f"{split.folder}, {split.origin}: {len(split.train_paths)} images of {len(split.classes)} classes",
        "test images": str(len(split.test_paths)),
        "image side": f"{embedding.preprocessing.size} px",
        "precision": embedding.precision,
    }
    if options.label_fraction is not None:
        classes = "as chance has them" if options.unbalanced else "even"
        facts["draws of labels"] = f"{options.repeats}, seed {options.seed}, classes {classes}"
    return facts


def _raise_if_failed(results: "list[GateResult]") -> None:
    failed = [result for result in results if not result.passed]
    if failed:
        raise GateError(f"{len(failed)} of {len(results)} gates failed, first {failed[0].name}: it {failed[0].found}")


def _describe(data: Path, split: "LabeledSplit") -> "EvalDataJson":
    return {
        "path": str(data),
        "train": len(split.train_paths),
        "test": len(split.test_paths),
        "classes": split.classes,
        "split": split.origin,
    }
